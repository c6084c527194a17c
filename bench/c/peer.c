/* One side of a wrapper measurement, as plain C would do it. The same program in Rust is
 * src/peer.rs; the two take the same arguments and print the same line.
 *
 *   peer-c MECHANISM round-trip|one-way near|far COUNT WARM_UP CPU OUT_ID IN_ID
 *
 * The near side sends first and, in a round trip, measures; the far side answers or, one way,
 * measures. Descriptor 3 is where to send, 4 where to receive; System V queues are given by id.
 * It prints, in nanoseconds: total, then p50, p90, p99 and p99.9 of the round trips.
 *
 * Source: pipe(7), send(2), recv(2), mq_send(3), msgop(2), eventfd(2).
 */
#define _GNU_SOURCE
#include <mqueue.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BYTES = 64, OUT = 3, IN = 4, UDP_BURST = 64, MOST_SAMPLES = 1 << 20 };

enum mechanism { PIPE, UNIX_STREAM, DATAGRAM, SEQPACKET, POSIX_MQ, SYSV_MSG, STREAM_SOCKET, EVENTFD };

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

struct typed_message {
    long type;
    char text[BYTES];
};

/* Sends one message. The mechanism is a constant at every call, so the switch costs nothing. */
static inline __attribute__((always_inline)) void put(enum mechanism mechanism,
                                                      struct typed_message *message)
{
    switch (mechanism) {
    case PIPE:
        if (write(OUT, message->text, BYTES) != BYTES)
            die("write");
        break;
    case UNIX_STREAM:
    case DATAGRAM:
    case SEQPACKET:
    case STREAM_SOCKET:
        if (send(OUT, message->text, BYTES, MSG_NOSIGNAL) != BYTES)
            die("send");
        break;
    case POSIX_MQ:
        if (mq_send(OUT, message->text, BYTES, 0) != 0)
            die("mq_send");
        break;
    case SYSV_MSG:
        message->type = 1;
        if (msgsnd(out_id, message, BYTES, 0) != 0)
            die("msgsnd");
        break;
    case EVENTFD: {
        uint64_t one = 1;
        if (write(OUT, &one, sizeof one) != sizeof one)
            die("write");
        break;
    }
    }
}

/* Receives one message. */
static inline __attribute__((always_inline)) void take(enum mechanism mechanism,
                                                       struct typed_message *message)
{
    switch (mechanism) {
    case PIPE: {
        size_t filled = 0;
        while (filled < BYTES) {
            ssize_t n = read(IN, message->text + filled, BYTES - filled);
            if (n <= 0)
                die("read");
            filled += (size_t)n;
        }
        break;
    }
    case UNIX_STREAM:
    case STREAM_SOCKET: {
        size_t filled = 0;
        while (filled < BYTES) {
            ssize_t n = recv(IN, message->text + filled, BYTES - filled, 0);
            if (n <= 0)
                die("recv");
            filled += (size_t)n;
        }
        break;
    }
    case DATAGRAM:
        if (recv(IN, message->text, BYTES, MSG_TRUNC) != BYTES)
            die("recv");
        break;
    case SEQPACKET: {
        /* With the sender's credentials, which tell an empty packet from the end. */
        char control[CMSG_SPACE(sizeof(struct ucred))];
        struct iovec part = {.iov_base = message->text, .iov_len = BYTES};
        struct msghdr header = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = control,
                                .msg_controllen = sizeof control};
        if (recvmsg(IN, &header, MSG_TRUNC | MSG_CMSG_CLOEXEC) != BYTES)
            die("recvmsg");
        break;
    }
    case POSIX_MQ: {
        unsigned priority;
        if (mq_receive(IN, message->text, BYTES, &priority) != BYTES)
            die("mq_receive");
        break;
    }
    case SYSV_MSG:
        if (msgrcv(in_id, message, BYTES, 0, 0) != BYTES)
            die("msgrcv");
        break;
    case EVENTFD: {
        uint64_t count;
        if (read(IN, &count, sizeof count) != sizeof count)
            die("read");
        break;
    }
    }
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

static inline __attribute__((always_inline)) void run(enum mechanism mechanism, int round_trip,
                                                      int near, int udp, size_t count,
                                                      size_t warm_up)
{
    struct typed_message message = {.type = 1, .text = {0}};
    uint32_t *samples = malloc(MOST_SAMPLES * sizeof *samples);
    size_t total = count + warm_up;
    if (samples == NULL || count > MOST_SAMPLES)
        die("COUNT");
    if (round_trip && near) {
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
    } else if (round_trip) {
        for (size_t i = 0; i < total; i++) {
            take(mechanism, &message);
            put(mechanism, &message);
        }
    } else if (near) {
        for (size_t i = 1; i <= total; i++) {
            put(mechanism, &message);
            if (udp && i % UDP_BURST == 0)
                take(mechanism, &message);
        }
    } else {
        uint64_t start = now_ns();
        for (size_t i = 1; i <= total; i++) {
            take(mechanism, &message);
            if (udp && i % UDP_BURST == 0)
                put(mechanism, &message);
            if (i == warm_up)
                start = now_ns();
        }
        report(now_ns() - start, samples, 0);
    }
    free(samples);
}

int main(int argc, char **argv)
{
    if (argc != 9) {
        fprintf(stderr, "usage: peer-c MECHANISM round-trip|one-way near|far COUNT WARM_UP CPU "
                        "OUT_ID IN_ID\n");
        return 2;
    }
    const char *name = argv[1];
    int round_trip = strcmp(argv[2], "round-trip") == 0;
    int near = strcmp(argv[3], "near") == 0;
    size_t count = strtoul(argv[4], NULL, 10), warm_up = strtoul(argv[5], NULL, 10);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(strtoul(argv[6], NULL, 10), &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus) != 0)
        die("sched_setaffinity");
    out_id = atoi(argv[7]);
    in_id = atoi(argv[8]);

    if (strcmp(name, "pipe") == 0 || strcmp(name, "fifo") == 0)
        run(PIPE, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "unix-stream") == 0)
        run(UNIX_STREAM, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "unix-dgram") == 0)
        run(DATAGRAM, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "unix-seqpacket") == 0)
        run(SEQPACKET, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "posix-mq") == 0)
        run(POSIX_MQ, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "sysv-msg") == 0)
        run(SYSV_MSG, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "tcp") == 0)
        run(STREAM_SOCKET, round_trip, near, 0, count, warm_up);
    else if (strcmp(name, "udp") == 0)
        run(DATAGRAM, round_trip, near, 1, count, warm_up);
    else if (strcmp(name, "eventfd") == 0)
        run(EVENTFD, round_trip, near, 0, count, warm_up);
    else {
        fprintf(stderr, "no such mechanism: %s\n", name);
        return 2;
    }
    return 0;
}
