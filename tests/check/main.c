/* Check every row of kernels.def that this CPU can run, and time it with --bench. Options: see check.py. */
#define _GNU_SOURCE
#include "harness.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const kernel_row rows[] = {
#define K(slot, isa) {QK_SLOT_##slot, QK_ISA_##isa, {.slot = &qk_##slot##_##isa}},
#include "kernels.def"
#undef K
};
enum { ROW_COUNT = sizeof rows / sizeof *rows };

const kernel_row *row_of(enum qk_slot slot, enum qk_isa isa)
{
    for (int r = 0; r < ROW_COUNT; r++)
        if (rows[r].slot == slot && rows[r].isa == isa)
            return &rows[r];
    return NULL;
}

static const struct slot_check {
    void (*check)(const kernel_row *row);
    timing (*bench)(kernel_pointer kernel);
} slot_checks[QK_SLOT_COUNT] = {
#define X(slot) {check_##slot, bench_##slot},
    QK_SLOTS(X)
#undef X
};

static const char *isa_wanted, *op_wanted = "*";

static int wanted(const kernel_row *row)
{
    return (!isa_wanted || strcmp(isa_wanted, qk_isa_name(row->isa)) == 0) &&
           fnmatch(op_wanted, qk_slot_name(row->slot), 0) == 0;
}

/* Whether the row passes. */
static int check_row(const kernel_row *row)
{
    size_t cases = run_row(row, slot_checks[row->slot].check);
    printf("%-13s %-22s %8zu cases  %s\n", qk_isa_name(row->isa), qk_slot_name(row->slot), cases,
           cases ? "ok" : "FAILED");
    fflush(stdout);
    return cases > 0;
}

static timing time_row(const kernel_row *row)
{
    begin_timing(row);
    return slot_checks[row->slot].bench(row->kernel);
}

/* Time of the scalar row of a slot, taken once. */
static timing scalar_timing(enum qk_slot slot)
{
    static timing known[QK_SLOT_COUNT];
    if (known[slot].ns == 0)
        known[slot] = time_row(row_of(slot, QK_ISA_scalar));
    return known[slot];
}

static void bench_row(const kernel_row *row)
{
    timing scalar = scalar_timing(row->slot);
    timing t = row->isa == QK_ISA_scalar ? scalar : time_row(row);
    double speed = t.work / t.ns, scalar_speed = scalar.work / scalar.ns;
    printf("%-13s %-22s %9.3f %-10s +-%4.1f %%  %6.2f x scalar", qk_isa_name(row->isa), qk_slot_name(row->slot),
           t.unit == OPERATIONS ? speed : 1 / speed, t.unit == OPERATIONS ? "GOPS" : "ns/element",
           50 * t.spread, speed / scalar_speed);
    if (t.peak > 0)
        printf("  %5.1f %% of peak", 100 * speed / t.peak);
    if (t.other > 0)
        printf(", %5.1f %% %s", 100 * t.other / t.peak, t.other_name);
    if (t.memcpy_ns > 0)
        printf("  %5.2f x memcpy's time", t.ns / t.memcpy_ns);
    printf("\n");
    fflush(stdout);
}

/* Exit unless the ISA named by --isa can run here. */
static void require_isa(const char *name)
{
    for (int isa = 0; isa < qk_isa_count(); isa++)
        if (strcmp(name, qk_isa_name(isa)) == 0) {
            if (qk_isa_supported(isa))
                return;
            fprintf(stderr, "check: isa %s: %s\n", name,
                    qk_isa_built(isa) ? "not supported by this CPU" : "not built for this architecture");
            exit(2);
        }
    fprintf(stderr, "check: isa %s: unknown\n", name);
    exit(2);
}

/* The rows that pass. */
static void check_all(int passes[ROW_COUNT], int *passed, int *failed)
{
    for (int r = 0, reported_isa = -1; r < ROW_COUNT; r++) {
        if (!wanted(&rows[r]))
            continue;
        if (!qk_isa_supported(rows[r].isa)) {
            if (reported_isa != (int)rows[r].isa)
                printf("%-13s not supported here: its rows are not run\n", qk_isa_name(rows[r].isa));
            reported_isa = rows[r].isa;
            continue;
        }
        passes[r] = check_row(&rows[r]);
        *(passes[r] ? passed : failed) += 1;
    }
}

/* The value that follows option `name`, past which *i then stands; NULL when argument *i is something else. */
static const char *option_value(const char *name, int argc, char **argv, int *i)
{
    if (strcmp(argv[*i], name) != 0 || *i + 1 >= argc)
        return NULL;
    return argv[++*i];
}

/* Returns whether --bench was given. */
static int read_options(int argc, char **argv)
{
    int bench = 0;
    for (int i = 1; i < argc; i++) {
        const char *value;
        if (strcmp(argv[i], "--bench") == 0)
            bench = 1;
        else if (strcmp(argv[i], "--smoke") == 0)
            options.smoke = 1;
        else if (strcmp(argv[i], "--long") == 0)
            options.all = 1;
        else if ((value = option_value("--isa", argc, argv, &i)))
            isa_wanted = value;
        else if ((value = option_value("--op", argc, argv, &i)))
            op_wanted = value;
        else if ((value = option_value("--seed", argc, argv, &i)))
            options.seed = strtoull(value, NULL, 10);
        else if ((value = option_value("--side", argc, argv, &i)))
            options.skip_side[strcmp(value, "start") == 0 ? AT_END : AT_START] = 1;
        else {
            fprintf(stderr, "check: unknown option, or one without its value: %s\n", argv[i]);
            exit(2);
        }
    }
    return bench;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, passes[ROW_COUNT] = {0};

    const int bench = read_options(argc, argv);
    if (isa_wanted)
        require_isa(isa_wanted);
    report_crashes();

    printf("seed %llu\n", (unsigned long long)options.seed);
    check_all(passes, &passed, &failed);
    for (int r = 0; bench && r < ROW_COUNT; r++)
        if (passes[r])
            bench_row(&rows[r]);
    if (passed + failed == 0)
        fprintf(stderr, "check: no kernel that runs here has a name like %s\n", op_wanted);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
