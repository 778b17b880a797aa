/* The thread pool: workers that wait for a job by spinning briefly and then parking, so that a stream of products finds
 * them awake and an idle process costs nothing.
 *
 * One job runs at a time. Its owner writes down the job and opens the gate, a word that counts the seats still free and
 * the workers inside:
 *
 *      owner    open: gate = seats          draw tasks    close: seats = 0    wait until nobody is inside
 *      worker   enter: a seat becomes one more inside     draw tasks          leave: one fewer inside
 *
 * As both counts are one word, a worker is either inside before the gate closes, and then waited for, or it stays
 * outside and touches nothing of the job: a worker that the system is slow to schedule delays nobody. One that is awake
 * may enter twice; it finds no task the second time. Who finds the pool busy works alone: many callers are parallel
 * already.
 *
 * Waking is Dekker's protocol and needs the sequentially consistent order that C's atomics have by default: whoever
 * parks announces it and then looks at the gate once more, whoever moves the gate then looks for announcements.
 *
 * fork: the child has only the thread that forked, so its pool becomes an empty one that fills on first use, whatever
 * the parent's was doing. Exit: workers hold nothing that outlives them, and end with the process.
 */
#define _GNU_SOURCE
#include "threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "interrupt.h"

enum {
    SPINS = 1000,   /* before parking: tens of microseconds */
    SEAT = 1 << 16, /* one in the gate's count of seats, which stands above that of the workers inside */
    PATIENCE = 100, /* milliseconds that an owner waits before it looks whether its call is to end */
};
_Static_assert((int)QK_MAX_THREADS < (int)SEAT, "the workers inside fit their half of the gate");

/* Where threads park until a condition on the gate holds. */
typedef struct room {
    atomic_int parked;
    pthread_cond_t wake;
} room;

static struct pool {
    atomic_flag busy; /* taken by the owner of the running job, who alone changes what follows */
    int workers;      /* that have been started */
    void (*task)(void *context, size_t i);
    void *context;
    size_t count;
    const atomic_int *interruption; /* of the owner */

    _Alignas(64) atomic_size_t next; /* the next task to draw */
    _Alignas(64) atomic_uint gate;   /* SEAT * seats free + workers inside */
    pthread_mutex_t mutex;           /* of the two rooms */
    room for_workers, for_owner;
} pool;

static atomic_int num_threads = 1;

int qk_get_num_threads(void) { return atomic_load(&num_threads); }
void qk_set_num_threads(int n) { atomic_store(&num_threads, n); }

static void empty_pool(void)
{
    pool = (struct pool){
        .busy = ATOMIC_FLAG_INIT,
        .mutex = PTHREAD_MUTEX_INITIALIZER,
        .for_workers.wake = PTHREAD_COND_INITIALIZER,
        .for_owner.wake = PTHREAD_COND_INITIALIZER,
    };
}

__attribute__((constructor)) static void empty_pool_now_and_in_forked_children(void)
{
    empty_pool();
    pthread_atfork(NULL, NULL, empty_pool);
}

/* ------------------------------------------------------------------------------------------ waiting and waking */

static int is_open(void) { return atomic_load(&pool.gate) >= SEAT; }
static int is_left(void) { return atomic_load(&pool.gate) == 0; }

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield does nothing on most cores; isb takes about as long as the pause of an x86 */
#endif
}

static struct timespec in_milliseconds(long more)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); /* as pthread_cond_timedwait reads it */
    t.tv_nsec += more % 1000 * 1000000;
    t.tv_sec += more / 1000 + t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    return t;
}

/* Until the condition holds; with `meanwhile`, which is called now and then. */
static void wait_in(room *room, int (*condition)(void), int (*meanwhile)(void))
{
    for (int spin = 1; spin <= SPINS; spin++) {
        if (condition())
            return;
        if (spin % 16)
            pause_briefly();
        else
            sched_yield(); /* where threads outnumber CPUs, the one waited for may need this one */
    }
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&room->parked, 1);
    while (!condition()) {
        if (!meanwhile) {
            pthread_cond_wait(&room->wake, &pool.mutex);
            continue;
        }
        const struct timespec soon = in_milliseconds(PATIENCE);
        if (pthread_cond_timedwait(&room->wake, &pool.mutex, &soon) == ETIMEDOUT) {
            pthread_mutex_unlock(&pool.mutex);
            meanwhile();
            pthread_mutex_lock(&pool.mutex);
        }
    }
    atomic_fetch_sub(&room->parked, 1);
    pthread_mutex_unlock(&pool.mutex);
}

static void wake(room *room, int threads)
{
    /* Who has announced itself and found its condition false holds the mutex until the signal can reach it. */
    pthread_mutex_lock(&pool.mutex);
    pthread_mutex_unlock(&pool.mutex);
    for (; threads > 0; threads--)
        pthread_cond_signal(&room->wake);
}

/* ----------------------------------------------------------------------------------------------------- working */

static void draw_tasks(void)
{
    for (size_t i; !qk_interrupted() && (i = atomic_fetch_add(&pool.next, 1)) < pool.count;)
        pool.task(pool.context, i);
}

/* What became of the calling thread's call so far. */
static qk_status is_interrupted(void)
{
    return atomic_load_explicit(qk_interruption(), memory_order_relaxed) ? QK_INTERRUPTED : QK_OK;
}

/* Whether there was a seat. */
static int enter(void)
{
    unsigned gate = atomic_load(&pool.gate);
    while (gate >= SEAT)
        if (atomic_compare_exchange_weak(&pool.gate, &gate, gate - SEAT + 1))
            return 1;
    return 0;
}

static void *work(void *unused)
{
    qk_set_default_floating_mode(); /* the mode of the thread that started this one may be another */
    for (;;) {
        wait_in(&pool.for_workers, is_open, NULL);
        if (!enter())
            continue;
        qk_follow_interruption(pool.interruption);
        draw_tasks();
        if (atomic_fetch_sub(&pool.gate, 1) == 1 && atomic_load(&pool.for_owner.parked))
            wake(&pool.for_owner, 1);
    }
    return unused;
}

/* Start workers until there are `wanted`; how many there are, fewer where the system refuses. They leave signals to the
 * threads of the program, except those that tell of their own faults. */
static int start_workers(int wanted)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    sigset_t blocked, before;
    if (pool.workers >= wanted)
        return wanted;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    for (pthread_t thread; pool.workers < wanted && pthread_create(&thread, NULL, work, NULL) == 0; pool.workers++)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pool.workers;
}

qk_status qk_parallel_for(void (*task)(void *context, size_t i), void *context, size_t count)
{
    const size_t allowed = (size_t)qk_get_num_threads(), threads = count < allowed ? count : allowed;
    if (threads < 2 || atomic_flag_test_and_set(&pool.busy)) {
        for (size_t i = 0; i < count && !(i > 0 && qk_interrupted()); i++)
            task(context, i);
        return is_interrupted();
    }
    const int helpers = start_workers((int)threads - 1);
    pool.task = task;
    pool.context = context;
    pool.count = count;
    pool.interruption = qk_interruption();
    atomic_store(&pool.next, 0);
    /* An exchange, which on x86 is what a sequentially consistent store is anyway: qemu 7 on x86 lets the load behind an
     * Arm store-release pass it, and the announcement of who parks just now is missed. */
    atomic_exchange(&pool.gate, (unsigned)helpers * SEAT);
    const int awake = pool.workers - atomic_load(&pool.for_workers.parked);
    if (awake < helpers)
        wake(&pool.for_workers, helpers - awake);
    draw_tasks();
    atomic_fetch_and(&pool.gate, SEAT - 1);
    wait_in(&pool.for_owner, is_left, qk_interrupted);
    atomic_flag_clear(&pool.busy);
    return is_interrupted();
}
