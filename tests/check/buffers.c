/* Test buffers between guard pages, and their comparison; see harness.h. */
#define _GNU_SOURCE
#include "harness.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CANARY = 0xa7, CANARY_BYTES = 256 /* that are set and verified on each side of the data */ };

static buffer *all_buffers;

static _Noreturn void out_of_memory(void)
{
    perror("check: mapping test buffers");
    exit(1);
}

static void map_pages(buffer *b, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (b->pages)
        munmap(b->pages - page, b->capacity + 2 * page);
    else {
        b->next = all_buffers;
        all_buffers = b;
    }
    /* Room to spare: a buffer that grows by small steps is not mapped anew at each. */
    b->capacity = (2 * bytes + page) / page * page;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *base = mmap(NULL, b->capacity + 2 * page, PROT_NONE, flags, -1, 0);
    if (base == MAP_FAILED)
        out_of_memory();
    b->pages = base + page;
    b->frozen = 1;
}

static void set_frozen(buffer *b, int frozen)
{
    if (b->frozen != frozen && mprotect(b->pages, b->capacity, PROT_READ | (frozen ? 0 : PROT_WRITE)))
        out_of_memory();
    b->frozen = frozen;
}

static size_t slack_before(const buffer *b)
{
    size_t slack = (size_t)(b->data - b->pages);
    return slack < CANARY_BYTES ? slack : CANARY_BYTES;
}

static size_t slack_after(const buffer *b)
{
    size_t slack = (size_t)(b->pages + b->capacity - b->data) - b->size;
    return slack < CANARY_BYTES ? slack : CANARY_BYTES;
}

static void *place_bytes(buffer *b, page_side side, size_t bytes, size_t offset_bytes, size_t alignment)
{
    if (bytes + offset_bytes + alignment > b->capacity)
        map_pages(b, bytes + offset_bytes + alignment);
    set_frozen(b, 0);
    size_t start = offset_bytes;
    if (side == AT_END)
        start = (b->capacity - offset_bytes - bytes) / alignment * alignment;
    b->data = b->pages + start;
    b->size = bytes;
    memset(b->data - slack_before(b), CANARY, slack_before(b) + bytes + slack_after(b));
    return b->data;
}

void *place(buffer *b, size_t count, size_t element_size)
{
    return place_bytes(b, case_side(), count * element_size, case_offset() * element_size, 1);
}

void *place_aligned(buffer *b, size_t bytes, size_t alignment)
{
    return place_bytes(b, case_side(), bytes, 0, alignment);
}

void *place_expected(buffer *expected, const buffer *b)
{
    return place_bytes(expected, AT_START, b->size, 0, 1);
}

void freeze(buffer *b)
{
    set_frozen(b, 1);
}

static size_t element_bytes(element_type type)
{
    return type == U8 ? 1 : type == F64 ? 8 : 4;
}

static int same_element(const uint8_t *a, const uint8_t *b, element_type type)
{
    float x, y;
    if (type != F32_VALUE)
        return memcmp(a, b, element_bytes(type)) == 0;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x == y;
}

static void describe(char *text, size_t chars, const uint8_t *element, element_type type)
{
    uint64_t wide;
    uint32_t bits = 0;
    double x;
    if (type == F64) {
        memcpy(&wide, element, sizeof wide);
        memcpy(&x, element, sizeof x);
        snprintf(text, chars, "%.17g (0x%016" PRIx64 ")", x, wide);
        return;
    }
    memcpy(&bits, element, element_bytes(type));
    if (type == U8 || type == S32)
        snprintf(text, chars, "%d (0x%x)", (int32_t)bits, (unsigned)bits);
    else
        snprintf(text, chars, "%.9g (0x%08x)", (double)float_of_bits(bits), (unsigned)bits);
}

void expect_intact(const buffer *b)
{
    for (size_t i = 1; i <= slack_before(b); i++)
        if (*(b->data - i) != CANARY)
            fail("%s: byte %zu before its start was written", b->name, i);
    for (size_t i = 0; i < slack_after(b); i++)
        if (b->data[b->size + i] != CANARY)
            fail("%s: byte %zu past its end was written", b->name, i);
}

void expect_same(const buffer *got, const buffer *expected, element_type type)
{
    const size_t element = element_bytes(type);
    if (memcmp(got->data, expected->data, got->size) != 0)
        for (size_t i = 0; i < got->size; i += element)
            if (!same_element(got->data + i, expected->data + i, type)) {
                char is[64], should_be[64];
                describe(is, sizeof is, got->data + i, type);
                describe(should_be, sizeof should_be, expected->data + i, type);
                fail("%s[%zu]: expected %s, got %s", got->name, i / element, should_be, is);
            }
    expect_intact(got);
}

void expect_equal(const char *what, long long got, long long expected)
{
    if (got != expected)
        fail("%s: expected %lld, got %lld", what, expected, got);
}

const char *name_access(const void *address, const char **buffer_name)
{
    const uint8_t *byte = address;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (const buffer *b = all_buffers; b; b = b->next) {
        const uint8_t *end = b->pages + b->capacity;
        if (byte < b->pages - page || byte >= end + page)
            continue;
        *buffer_name = b->name;
        return byte >= end ? "past the end of " : byte < b->pages ? "before the start of " : "write to ";
    }
    return NULL;
}
