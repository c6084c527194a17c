/* One process of a measurement of `locks`, in plain C: the C library's own process-shared objects. The
 * same program over switchboard_kernel::sync is src/locks/peer.rs; the two take the same arguments and
 * print the same lines.
 *
 *   locks-c WHAT INDEX COUNT CPU
 *
 * Descriptor 3 is memory, zeroed for each run, 4 is where to read the word to begin. The process 0
 * makes the objects. Each prints a line when it is ready, and one of how long it took, in nanoseconds.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Each object on pages of its own. */
enum { MEMORY = 3, BEGIN = 4, PAGE = 4096, BYTES = 1 << 20 };

struct shared {
    union { pthread_mutex_t mutex; char page[PAGE]; } mutexes[3];
    union { pthread_cond_t condition; char page[PAGE]; } conditions[2];
    union { pthread_rwlock_t lock; char page[PAGE]; } rw;
    union { sem_t semaphore; char page[PAGE]; } semaphores[2];
    union { volatile uint64_t sum; char page[PAGE]; } words;
    union { volatile uint32_t turn; char page[PAGE]; } turns;
    union { char data[64]; char page[PAGE]; } account;
};

static struct shared *shared;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static ALWAYS_INLINE void must(int result, const char *what)
{
    if (__builtin_expect(result != 0, 0))
        die(what);
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void make(int plain, unsigned first)
{
    pthread_mutexattr_t of_mutex;
    pthread_condattr_t of_condition;
    pthread_rwlockattr_t of_lock;
    pthread_mutexattr_init(&of_mutex);
    pthread_mutexattr_setpshared(&of_mutex, PTHREAD_PROCESS_SHARED);
    if (!plain) {
        pthread_mutexattr_setrobust(&of_mutex, PTHREAD_MUTEX_ROBUST);
        pthread_mutexattr_settype(&of_mutex, PTHREAD_MUTEX_ERRORCHECK);
    }
    for (int i = 0; i < 3; i++)
        must(pthread_mutex_init(&shared->mutexes[i].mutex, &of_mutex), "pthread_mutex_init");
    pthread_condattr_init(&of_condition);
    pthread_condattr_setpshared(&of_condition, PTHREAD_PROCESS_SHARED);
    for (int i = 0; i < 2; i++) {
        must(pthread_cond_init(&shared->conditions[i].condition, &of_condition),
             "pthread_cond_init");
        must(sem_init(&shared->semaphores[i].semaphore, 1, i == 0 ? first : 0), "sem_init");
    }
    pthread_rwlockattr_init(&of_lock);
    pthread_rwlockattr_setpshared(&of_lock, PTHREAD_PROCESS_SHARED);
    must(pthread_rwlock_init(&shared->rw.lock, &of_lock), "pthread_rwlock_init");
}

static ALWAYS_INLINE void lock(int i)
{
    must(pthread_mutex_lock(&shared->mutexes[i].mutex), "pthread_mutex_lock");
}

static ALWAYS_INLINE void unlock(int i)
{
    must(pthread_mutex_unlock(&shared->mutexes[i].mutex), "pthread_mutex_unlock");
}

/* What is repeated: everything is inlined into its loop. */
#define REPEAT(step)                                                                               \
    for (uint64_t i = 0; i < count; i++) {                                                         \
        step                                                                                       \
    }

static void run(const char *what, int me, uint64_t count)
{
    int held = me == 0 ? 0 : 2;
    sem_t *mine = &shared->semaphores[me & 1].semaphore;
    sem_t *other = &shared->semaphores[1 - (me & 1)].semaphore;
    if (strcmp(what, "mutex") == 0) {
        REPEAT(lock(0); unlock(0);)
    } else if (strcmp(what, "sum") == 0) {
        REPEAT(lock(0); shared->words.sum++; unlock(0);)
    } else if (strcmp(what, "hand-over") == 0) {
        REPEAT(int next = (held + 1) % 3; lock(next); unlock(held); held = next;)
        unlock(held);
    } else if (strcmp(what, "semaphore") == 0 || strcmp(what, "permits") == 0) {
        REPEAT(must(sem_wait(&shared->semaphores[0].semaphore), "sem_wait");
               must(sem_post(&shared->semaphores[0].semaphore), "sem_post");)
    } else if (strcmp(what, "semaphore-turns") == 0) {
        REPEAT(must(sem_wait(mine), "sem_wait"); must(sem_post(other), "sem_post");)
    } else if (strcmp(what, "read") == 0) {
        REPEAT(must(pthread_rwlock_rdlock(&shared->rw.lock), "pthread_rwlock_rdlock");
               must(pthread_rwlock_unlock(&shared->rw.lock), "pthread_rwlock_unlock");)
    } else if (strcmp(what, "write") == 0) {
        REPEAT(must(pthread_rwlock_wrlock(&shared->rw.lock), "pthread_rwlock_wrlock");
               must(pthread_rwlock_unlock(&shared->rw.lock), "pthread_rwlock_unlock");)
    } else if (strcmp(what, "notify") == 0) {
        REPEAT(must(pthread_cond_signal(&shared->conditions[0].condition), "pthread_cond_signal");)
    } else if (strcmp(what, "condition-turns") == 0) {
        REPEAT(lock(0);
               while (shared->turns.turn != (uint32_t)me)
                   must(pthread_cond_wait(&shared->conditions[me].condition,
                                          &shared->mutexes[0].mutex),
                        "pthread_cond_wait");
               shared->turns.turn = 1 - (uint32_t)me;
               must(pthread_cond_signal(&shared->conditions[1 - me].condition),
                    "pthread_cond_signal");
               unlock(0);)
    } else if (strcmp(what, "monitor") == 0) {
        char copy[64];
        REPEAT(lock(0); memcpy(copy, shared->account.data, sizeof copy); copy[0]++;
               __asm__ volatile("" : : "r"(copy) : "memory");
               memcpy(shared->account.data, copy, sizeof copy); unlock(0);)
    } else {
        die(what);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        die("usage: locks-c WHAT INDEX COUNT CPU");
    char what[32];
    snprintf(what, sizeof what, "%s", argv[1]);
    char *plain = strstr(what, "-plain");
    if (plain != NULL)
        *plain = 0;
    int me = atoi(argv[2]);
    uint64_t count = strtoull(argv[3], NULL, 10);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(strtoul(argv[4], NULL, 10), &cpus);
    must(sched_setaffinity(0, sizeof cpus, &cpus), "sched_setaffinity");
    shared = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0);
    if (shared == MAP_FAILED)
        die("mmap");
    if (me == 0)
        make(plain != NULL, strcmp(what, "permits") == 0 ? 2 : 1);
    if (strcmp(what, "hand-over") == 0)
        lock(me == 0 ? 0 : 2);
    char word;
    if (write(1, "ready\n", 6) != 6 || read(BEGIN, &word, 1) != 1)
        die("the word to begin");
    uint64_t start = now_ns();
    run(what, me, count);
    printf("%llu\n", (unsigned long long)(now_ns() - start));
    return 0;
}
