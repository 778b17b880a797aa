/* What a call brings to the threads that work for it: its interruption, and the floating-point mode. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "calls.h"
#include "checks.h"
#include "threads.h"

enum {
    TEAM = 4,
    BETWEEN_QUESTIONS = 150, /* milliseconds, and more */
};

static void sleep_ms(long ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }

/* ------------------------------------------------------------------------------------------------ interruption */

static atomic_int runs, answer;
static pthread_t owner;

static int ask(void)
{
    expect(pthread_equal(pthread_self(), owner), "the thread that makes the call asks");
    return atomic_load(&answer) && atomic_load(&runs) >= TEAM; /* tasks that wait for each other have all begun */
}

static void run_a_moment(void *context, size_t i)
{
    (void)context, (void)i;
    atomic_fetch_add(&runs, 1);
    sleep_ms(1);
}

/* All threads come; those of the pool stay until the call is interrupted. */
static void stay(void *context, size_t i)
{
    (void)context, (void)i;
    atomic_fetch_add(&runs, 1);
    while (atomic_load(&runs) < TEAM)
        sleep_ms(1);
    while (!pthread_equal(pthread_self(), owner) && !qk_interrupted())
        sleep_ms(1);
}

static qk_status call(void (*task)(void *context, size_t i), size_t count, int is_interrupted)
{
    QK_CALL;
    sleep_ms(BETWEEN_QUESTIONS);
    atomic_store(&runs, 0);
    atomic_store(&answer, is_interrupted);
    return qk_parallel_for(task, NULL, count);
}

void check_interruption(void)
{
    owner = pthread_self();
    qk_ask_for_interruption(ask);
    for (int threads = 1; threads <= TEAM; threads += TEAM - 1) {
        qk_set_num_threads(threads);
        expect(call(run_a_moment, 10000, 1) == QK_INTERRUPTED && atomic_load(&runs) < 10000, "a call is interrupted");
        expect(call(run_a_moment, 100, 0) == QK_OK && atomic_load(&runs) == 100, "the next one is not");
    }
    expect(call(stay, TEAM, 1) == QK_INTERRUPTED, "who waits for workers asks, too");
    qk_ask_for_interruption(NULL);
    expect(call(run_a_moment, 100, 1) == QK_OK && atomic_load(&runs) == 100, "without anybody to ask");
}

/* --------------------------------------------------------------------------------------- floating-point mode */

#if defined(__x86_64__)
static const uint64_t flushing = 0x1f80 | 0x8040, mode_bits = ~(uint64_t)0x3f, standard = 0x1f80;
#elif defined(__aarch64__)
static const uint64_t flushing = 1 << 24, mode_bits = ~(uint64_t)0, standard = 0;
#else
static const uint64_t flushing = 0, mode_bits = 0, standard = 0; /* one that C does not know */
#endif

static void look_at_mode(void *context, size_t i)
{
    (void)context, (void)i;
    atomic_fetch_add(&runs, 1);
    while (atomic_load(&runs) < TEAM)
        sleep_ms(1);
    if (!pthread_equal(pthread_self(), owner))
        expect((qk_set_default_floating_mode() & mode_bits) == (standard & mode_bits), "workers have the default mode");
}

static void call_in_its_mode(void)
{
    QK_CALL;
    expect((qk_set_default_floating_mode() & mode_bits) == (standard & mode_bits), "a call has the default mode");
}

/* In a child, whose workers begin anew. */
void check_modes_of_workers(void)
{
    const pid_t child = fork();
    expect(child >= 0, "fork");
    if (child == 0) {
        alarm(60);
        owner = pthread_self();
        qk_set_num_threads(TEAM);
        atomic_store(&runs, 0);
        qk_restore_floating_mode(flushing);
        qk_parallel_for(look_at_mode, NULL, TEAM);
        call_in_its_mode();
        expect((qk_set_default_floating_mode() & mode_bits) == (flushing & mode_bits), "the caller's mode is back");
        _exit(0);
    }
    int status;
    expect(waitpid(child, &status, 0) == child && status == 0, "the child ends well");
}
