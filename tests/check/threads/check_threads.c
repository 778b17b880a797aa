/* The thread pool under stress; then, with --bench, its latencies. Built and started by check.py --threads.
 *
 * A lost wakeup, a worker that never comes or a child that hangs shows as a check that does not end, which alarm()
 * turns into a failure. Data that tasks and their caller share is not atomic: ThreadSanitizer sees whether the pool
 * orders it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "checks.h"
#include "qkernels.h"
#include "threads.h"

enum {
    MAX_TASKS = 1000,
    MAX_TEAM = 9,
    CALLERS = 6,
    PATIENCE = 120, /* seconds for a check, under emulation and sanitizers, too */
};

/* clang's name of the macro that gcc defines. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__ 1
#endif
#endif

/* It would wait a second at each exit for races to show. Visible, because gcc's sanitizer is a shared library. */
__attribute__((visibility("default"))) const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "atexit_sleep_ms=20"; }

void expect(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "expected: %s\n", what);
    _exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_us(long us) { nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL); }

/* -------------------------------------------------------------------------------------------------------- jobs */

/* A job that counts how often each task runs, each in a plain int. */
typedef struct tally {
    int runs[MAX_TASKS];
    long pause_us; /* in the tasks after the first */
} tally;

static void count_run(void *context, size_t i)
{
    tally *t = context;
    t->runs[i]++;
    if (t->pause_us && i)
        sleep_us(t->pause_us);
}

static void run_tally(size_t count, long pause_us)
{
    tally t = {.pause_us = pause_us};
    qk_parallel_for(count_run, &t, count);
    for (size_t i = 0; i < MAX_TASKS; i++)
        expect(t.runs[i] == (i < count), "each task runs once");
}

/* A job whose tasks wait for each other, so that it ends only if every one has a thread of its own. */
typedef struct meeting {
    atomic_size_t arrived;
    size_t count;
} meeting;

static void meet(void *context, size_t i)
{
    meeting *m = context;
    (void)i;
    atomic_fetch_add(&m->arrived, 1);
    for (int spin = 0; atomic_load(&m->arrived) < m->count; spin++)
        if (spin > 20000)
            sleep_us(1);
}

static void run_meeting(size_t count)
{
    meeting m = {.count = count};
    qk_parallel_for(meet, &m, count);
}

static atomic_int callers_stop;

static void *call_until_stop(void *first_count)
{
    for (size_t count = (size_t)first_count; !atomic_load(&callers_stop); count = (count + 7) % 100)
        run_tally(count, 0);
    return NULL;
}

static void start_callers(pthread_t callers[CALLERS])
{
    atomic_store(&callers_stop, 0);
    for (size_t i = 0; i < CALLERS; i++)
        expect(pthread_create(&callers[i], NULL, call_until_stop, (void *)(i * 13)) == 0, "threads for this check");
}

static void stop_callers(pthread_t callers[CALLERS])
{
    atomic_store(&callers_stop, 1);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
}

/* Run `body` in a forked child, and expect that it ends well. */
static void in_child(void (*body)(void))
{
    fflush(NULL);
    pid_t child = fork();
    expect(child >= 0, "fork");
    if (child == 0) {
        alarm(PATIENCE);
        body();
        _exit(0);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        expect(errno == EINTR, "the child can be waited for");
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ends well");
}

/* ------------------------------------------------------------------------------------------------------ checks */

static void exit_during_jobs(void)
{
    pthread_t callers[CALLERS];
    start_callers(callers);
    sleep_us(500);
    exit(0);
}

static void check_exit(void)
{
    qk_set_num_threads(3);
    for (int round = 0; round < 50; round++)
        in_child(exit_during_jobs);
}

static void work_without_threads(void)
{
    pthread_t thread;
    expect(geteuid() != 0 || setuid(65534) == 0, "root, whom the limit does not bind, can become nobody");
    setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0});
    expect(pthread_create(&thread, NULL, call_until_stop, NULL) != 0, "the system refuses threads");
    qk_set_num_threads(4);
    run_tally(100, 0);
}

static void check_no_threads_granted(void) { in_child(work_without_threads); }

static void check_each_task_once(void)
{
    static const size_t counts[] = {0, 1, 2, 3, 7, 64, MAX_TASKS};
    for (int round = 0; round < 50; round++)
        for (int threads = 1; threads <= MAX_TEAM; threads++) {
            qk_set_num_threads(threads);
            expect(qk_get_num_threads() == threads, "the number of threads that was set");
            for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
                run_tally(counts[c], 0);
        }
}

static void check_every_worker_comes(void)
{
    for (int round = 0; round < 500; round++) {
        size_t team = 2 + (size_t)round % (MAX_TEAM - 1);
        qk_set_num_threads((int)team);
        run_meeting(team);
        sleep_us(round % 10 * 20); /* around the moment when workers park */
    }
}

/* The next job comes at every moment around that when the worker parks. */
static void check_none_sleeps_on(void)
{
    qk_set_num_threads(2);
    for (int round = 0; round < 30000; round++) {
        for (double end = now() + 5e-9 * (round % 20000); now() < end;)
            ;
        run_meeting(2);
    }
}

static void check_owner_parks(void)
{
    for (int threads = 2; threads <= 4; threads++) {
        qk_set_num_threads(threads);
        for (int round = 0; round < 50; round++)
            run_tally((size_t)threads, round % 5 * 50);
    }
}

static void check_idle_costs_nothing(void)
{
    qk_set_num_threads(4);
    run_meeting(4);
    sleep_us(50000);
    clock_t before = clock(); /* CPU time of the process */
    sleep_us(300000);
    expect((double)(clock() - before) / CLOCKS_PER_SEC < 0.003, "parked workers use no CPU");
}

static void run_inner(void *context, size_t i)
{
    (void)context;
    run_tally(i, 0);
}

static void check_nested(void)
{
    qk_set_num_threads(3);
    for (int round = 0; round < 50; round++)
        qk_parallel_for(run_inner, NULL, 20);
}

static void check_many_callers(void)
{
    pthread_t callers[CALLERS];
    start_callers(callers);
    for (int round = 0; round < 1000; round++) {
        qk_set_num_threads(1 + round % MAX_TEAM);
        sleep_us(300);
    }
    stop_callers(callers);
}

#ifndef __SANITIZE_THREAD__ /* which gives up on threads in a child that was forked among threads */
static void work_in_child(void)
{
    run_tally(50, 0);
    qk_set_num_threads(3);
    run_meeting(3);
    run_tally(50, 0);
}

static void check_fork(void)
{
    qk_set_num_threads(3);
    run_meeting(3);
    for (int round = 0; round < 20; round++)
        in_child(work_in_child); /* the pool rests */
    pthread_t callers[CALLERS];
    start_callers(callers);
    for (int round = 0; round < 100; round++)
        in_child(work_in_child); /* it is at work for another thread */
    stop_callers(callers);
    run_meeting(3);
}
#endif

static volatile sig_atomic_t handled;
static void handle(int signal) { handled = signal; }

static void check_signals(void)
{
    sigset_t usr1, pending, before;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    signal(SIGUSR1, handle);
    qk_set_num_threads(MAX_TEAM);
    run_meeting(MAX_TEAM);
    pthread_sigmask(SIG_BLOCK, &usr1, &before);
    kill(getpid(), SIGUSR1);
    sleep_us(20000);
    run_meeting(MAX_TEAM);
    sigpending(&pending);
    expect(!handled && sigismember(&pending, SIGUSR1), "no worker takes the program's signals");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    expect(handled, "the program's own thread takes them");
}

static const struct check {
    const char *name;
    void (*run)(void);
} checks[] = {
    /* These two fork before the process has other threads. */
    {"exit during jobs", check_exit},
    {"no threads granted", check_no_threads_granted},
    {"each task once", check_each_task_once},
    {"every worker comes", check_every_worker_comes},
    {"none sleeps on", check_none_sleeps_on},
    {"the owner parks", check_owner_parks},
    {"idle costs nothing", check_idle_costs_nothing},
    {"nested calls", check_nested},
    {"many callers", check_many_callers},
    {"signals", check_signals},
    {"interruption", check_interruption},
#ifndef __SANITIZE_THREAD__
    {"fork", check_fork},
    {"floating-point mode", check_modes_of_workers},
#endif
};
enum { CHECK_COUNT = sizeof checks / sizeof *checks };

/* ------------------------------------------------------------------------------------------------------- times */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void spin_20us(void *context, size_t i)
{
    (void)context, (void)i;
    for (double end = now() + 20e-6; now() < end;)
        ;
}

static void do_nothing(void *context, size_t i) { (void)context, (void)i; }

enum job { EMPTY, MEETING, WORK };

/* Median microseconds of a job on this many threads, after a rest. */
static double time_job(enum job job, int threads, long rest_us, int rounds)
{
    double samples[2000];
    qk_set_num_threads(threads);
    for (int r = 0; r < rounds; r++) {
        if (rest_us)
            sleep_us(rest_us);
        double start = now();
        switch (job) {
        case EMPTY: qk_parallel_for(do_nothing, NULL, (size_t)threads); break;
        case MEETING: run_meeting((size_t)threads); break;
        case WORK: qk_parallel_for(spin_20us, NULL, 32); break;
        }
        samples[r] = 1e6 * (now() - start);
    }
    qsort(samples, (size_t)rounds, sizeof *samples, by_value);
    return samples[rounds / 2];
}

static void bench(void)
{
    const int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    printf("medians in us; %d CPUs\n", cpus);
    for (int threads = 1; threads <= 8 * cpus; threads *= 2)
        printf("32 tasks of 20, %3d threads, awake  %8.2f\n", threads, time_job(WORK, threads, 0, 500));
    time_job(WORK, 2, 0, 500); /* until the scheduler has them on two CPUs */
    printf("2 tasks that do nothing, awake      %8.2f\n", time_job(EMPTY, 2, 0, 2000));
    printf("2 tasks that meet, awake            %8.2f\n", time_job(MEETING, 2, 0, 2000));
    printf("2 tasks that meet, parked           %8.2f\n", time_job(MEETING, 2, 2000, 500));
}

int main(int argc, char **argv)
{
    const int timed = argc == 2 && strcmp(argv[1], "--bench") == 0;
    if (argc > 1 + timed) {
        fprintf(stderr, "check: the thread pool has no option but --bench: %s\n", argv[1]);
        return 2;
    }
    for (int i = 0; i < CHECK_COUNT; i++) {
        alarm(PATIENCE);
        double start = now();
        checks[i].run();
        printf("%-24s ok, %.1f s\n", checks[i].name, now() - start);
        fflush(stdout);
    }
    alarm(0);
    if (timed)
        bench();
    printf("%d passed, 0 failed\n", CHECK_COUNT);
    return 0;
}
