/* One side of a wrapper measurement, as plain C would do it. The same program in Rust is
 * src/peer.rs; the two take the same arguments and print the same line.
 *
 *   peer-c MECHANISM round-trip|one-way|alone near|far COUNT WARM_UP CPU OUT_ID IN_ID
 *
 * The near side sends first and, in a round trip, measures; the far side answers or, one way,
 * measures. Alone, the near side does both halves. Descriptor 3 is where to send, 4 where to receive,
 * or 3 is memory in which the ids are offsets; System V objects are given by id; what the patterns
 * use is found by names and keys made of the ids.
 * It prints, in nanoseconds: total, then p50, p90, p99 and p99.9 of the round trips.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ALWAYS_INLINE inline __attribute__((always_inline))

enum { BYTES = 64, OUT = 3, IN = 4, UDP_BURST = 64, MOST_SAMPLES = 1 << 20, PAGE = 4096 };

/* Where the mutex is in shared memory, after an object for each way; then a word for each object. */
enum { MUTEX = 128, WORDS = 192 };

enum mechanism {
    PIPE, UNIX_STREAM, DATAGRAM, SEQPACKET, POSIX_MQ, SYSV_MSG, STREAM_SOCKET, PTY, EVENTFD,
    POSIX_SEM, SYSV_SEM, FUTEX, FUTEX_WAITV, PTHREAD, SIGNAL, SIGNALFD,
    SYSV_SEM_UNDO, SYSV_SEM_SEVERAL, TIMERFD, TIMERFD_IDLE, EPOLL, EPOLL_ADD,
    NAMED_SEM, SHARED_VALUE,
    PTHREAD_MUTEX, FLOCK, PROCESS_LOCK, OPEN_FILE_LOCK, INOTIFY, SPLICE, TEE, VMSPLICE,
    MEMORY_IN_64, MEMORY_OUT_64, MEMORY_IN_4096, MEMORY_OUT_4096,
    MEMFD, MEMFD_SEALED, MEMFD_HUGE, POSIX_SHM, POSIX_SHM_OPEN, SYSV_SHM, SYSV_SHM_ATTACH, SYSV_KEY,
    POSIX_SEM_MADE, POSIX_SEM_OPEN, PTY_MADE,
    MMAP_MADE, MMAP_GROW, MMAP_PRIVATE, MMAP_ADVICE, MSYNC,
    PIDFD, PROCESS_STAT, SPAWN, ORPHAN, SIGNAL_HANDLER
};

static int out_id, in_id;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#include "messages.h"
#include "wakes.h"
#include "alone.h"
#include "made.h"
#include "processes.h"
#include "named.h"

/* The mechanism is a constant at every call, so choosing costs nothing. */
static ALWAYS_INLINE void put(enum mechanism mechanism, struct typed_message *message)
{
    if (mechanism <= EVENTFD)
        put_message(mechanism, message);
    else if (mechanism <= EPOLL_ADD)
        put_wake(mechanism);
    else if (mechanism <= SHARED_VALUE)
        put_named(mechanism, message->text);
    else if (mechanism <= MEMORY_OUT_4096)
        once(mechanism);
    else if (mechanism <= MSYNC)
        make(mechanism);
    else
        treat_process(mechanism);
}

static ALWAYS_INLINE void take(enum mechanism mechanism, struct typed_message *message)
{
    if (mechanism <= EVENTFD)
        take_message(mechanism, message);
    else if (mechanism <= EPOLL_ADD)
        take_wake(mechanism);
    else if (mechanism <= SHARED_VALUE)
        take_named(mechanism, message->text);
}

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

static void report(uint64_t total_ns, uint32_t *samples, size_t count)
{
    static const unsigned per_mille[] = {500, 900, 990, 999};
    qsort(samples, count, sizeof *samples, by_value);
    printf("%llu", (unsigned long long)total_ns);
    for (size_t i = 0; i < sizeof per_mille / sizeof *per_mille; i++)
        printf(" %u", count ? samples[(count - 1) * per_mille[i] / 1000] : 0);
    printf("\n");
}

struct job {
    int alone, round_trip, near, udp;
    /* What is not read when the master goes is lost: it waits for a word at the end. */
    int pty;
    size_t count, warm_up;
};

/* Timed as a whole: a reading of the clock may take longer than what is measured. */
static ALWAYS_INLINE void repeat(enum mechanism mechanism, const struct job *job)
{
    struct typed_message message = {.type = 1, .text = {0}};
    for (size_t i = 0; i < job->warm_up; i++) {
        put(mechanism, &message);
        take(mechanism, &message);
    }
    uint64_t start = now_ns();
    for (size_t i = 0; i < job->count; i++) {
        put(mechanism, &message);
        take(mechanism, &message);
    }
    report(now_ns() - start, NULL, 0);
}

static ALWAYS_INLINE int run(enum mechanism mechanism, const struct job *job)
{
    struct typed_message message = {.type = 1, .text = {0}};
    size_t count = job->count, warm_up = job->warm_up, total = count + warm_up;
    if (job->alone) {
        repeat(mechanism, job);
        return 0;
    }
    uint32_t *samples = malloc(MOST_SAMPLES * sizeof *samples);
    if (samples == NULL || (job->round_trip && count > MOST_SAMPLES))
        die("COUNT");
    if (job->round_trip && job->near) {
        for (size_t i = 0; i < warm_up; i++) {
            put(mechanism, &message);
            take(mechanism, &message);
        }
        uint64_t start = now_ns(), last = start;
        for (size_t i = 0; i < count; i++) {
            put(mechanism, &message);
            take(mechanism, &message);
            uint64_t now = now_ns();
            samples[i] = (uint32_t)(now - last);
            last = now;
        }
        report(last - start, samples, count);
    } else if (job->round_trip) {
        for (size_t i = 0; i < total; i++) {
            take(mechanism, &message);
            put(mechanism, &message);
        }
    } else if (job->near) {
        for (size_t i = 1; i <= total; i++) {
            put(mechanism, &message);
            if (job->udp && i % UDP_BURST == 0)
                take(mechanism, &message);
        }
        if (job->pty)
            take(mechanism, &message);
    } else {
        uint64_t start = now_ns();
        for (size_t i = 1; i <= total; i++) {
            take(mechanism, &message);
            if (job->udp && i % UDP_BURST == 0)
                put(mechanism, &message);
            if (i == warm_up)
                start = now_ns();
        }
        report(now_ns() - start, samples, 0);
        if (job->pty)
            put(mechanism, &message);
    }
    free(samples);
    return 0;
}

/* One copy of the code for each mechanism, in which it is a constant. */
#define IS(text, mechanism)                                                                        \
    if (strcmp(name, text) == 0)                                                                   \
        return run(mechanism, &job);

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "usage: peer-c MECHANISM round-trip|one-way|alone near|far COUNT WARM_UP "
                        "CPU OUT_ID IN_ID\n");
        return 2;
    }
    const char *name = argv[1];
    struct job job = {.alone = strcmp(argv[2], "alone") == 0,
                      .round_trip = strcmp(argv[2], "round-trip") == 0,
                      .near = strcmp(argv[3], "near") == 0,
                      .udp = strcmp(name, "udp") == 0,
                      .pty = strcmp(name, "pty") == 0,
                      .count = strtoul(argv[4], NULL, 10),
                      .warm_up = strtoul(argv[5], NULL, 10)};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(strtoul(argv[6], NULL, 10), &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0)
        die("sched_setaffinity");
    out_id = atoi(argv[7]);
    in_id = atoi(argv[8]);
    prepare_wakes(name);
    prepare_alone(name);
    prepare_made(name);
    prepare_processes(name);
    prepare_named(name);

    IS("pipe", PIPE)
    IS("fifo", PIPE)
    IS("unix-stream", UNIX_STREAM)
    IS("unix-dgram", DATAGRAM)
    IS("unix-seqpacket", SEQPACKET)
    IS("posix-mq", POSIX_MQ)
    IS("sysv-msg", SYSV_MSG)
    IS("tcp", STREAM_SOCKET)
    IS("udp", DATAGRAM)
    IS("pty", PTY)
    IS("eventfd", EVENTFD)
    IS("posix-sem", POSIX_SEM)
    IS("sysv-sem", SYSV_SEM)
    IS("futex", FUTEX)
    IS("pthread", PTHREAD)
    IS("signal", SIGNAL)
    IS("signalfd", SIGNALFD)
    IS("pthread-mutex", PTHREAD_MUTEX)
    IS("flock", FLOCK)
    IS("process-lock", PROCESS_LOCK)
    IS("open-file-lock", OPEN_FILE_LOCK)
    IS("inotify", INOTIFY)
    IS("splice", SPLICE)
    IS("tee", TEE)
    IS("vmsplice", VMSPLICE)
    IS("memory-in-64", MEMORY_IN_64)
    IS("memory-out-64", MEMORY_OUT_64)
    IS("memory-in-4096", MEMORY_IN_4096)
    IS("memory-out-4096", MEMORY_OUT_4096)
    IS("watched-in-64", MEMORY_IN_64)
    IS("watched-out-64", MEMORY_OUT_64)
    IS("watched-in-4096", MEMORY_IN_4096)
    IS("watched-out-4096", MEMORY_OUT_4096)
    IS("memfd", MEMFD)
    IS("posix-shm", POSIX_SHM)
    IS("sysv-shm", SYSV_SHM)
    IS("posix-sem-named", NAMED_SEM)
    IS("futex-waitv", FUTEX_WAITV)
    IS("sysv-sem-undo", SYSV_SEM_UNDO)
    IS("sysv-sem-several", SYSV_SEM_SEVERAL)
    IS("timerfd", TIMERFD)
    IS("timerfd-idle", TIMERFD_IDLE)
    IS("epoll", EPOLL)
    IS("epoll-add", EPOLL_ADD)
    IS("memfd-sealed", MEMFD_SEALED)
    IS("memfd-huge", MEMFD_HUGE)
    IS("posix-shm-open", POSIX_SHM_OPEN)
    IS("sysv-shm-attach", SYSV_SHM_ATTACH)
    IS("sysv-key", SYSV_KEY)
    IS("posix-sem-made", POSIX_SEM_MADE)
    IS("posix-sem-open", POSIX_SEM_OPEN)
    IS("pty-made", PTY_MADE)
    IS("mmap-made", MMAP_MADE)
    IS("mmap-grow", MMAP_GROW)
    IS("mmap-private", MMAP_PRIVATE)
    IS("mmap-advice", MMAP_ADVICE)
    IS("msync", MSYNC)
    IS("pidfd", PIDFD)
    IS("process-stat", PROCESS_STAT)
    IS("spawn", SPAWN)
    IS("orphan", ORPHAN)
    IS("signal-handler", SIGNAL_HANDLER)
    IS("event-sem", NAMED_SEM)
    IS("event-sysv-sem", SYSV_SEM)
    IS("event-signal", SIGNAL)
    IS("state-watch", SHARED_VALUE)
    IS("state-set-64", MEMORY_IN_64)
    IS("state-get-64", MEMORY_OUT_64)
    IS("state-set-4096", MEMORY_IN_4096)
    IS("state-get-4096", MEMORY_OUT_4096)
    fprintf(stderr, "no such mechanism: %s\n", name);
    return 2;
}
