/* Mechanisms that carry messages.
 *
 * Source: pipe(7), pty(7), send(2), recv(2), mq_send(3), msgop(2), eventfd(2).
 */
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct typed_message {
    long type;
    char text[BYTES];
};

/* Sends one message. */
static ALWAYS_INLINE void put_message(enum mechanism mechanism, struct typed_message *message)
{
    switch (mechanism) {
    case PIPE:
        if (write(OUT, message->text, BYTES) != BYTES)
            die("write");
        break;
    case PTY: {
        size_t written = 0;
        while (written < BYTES) {
            ssize_t n = write(OUT, message->text + written, BYTES - written);
            if (n < 0)
                die("write");
            written += (size_t)n;
        }
        break;
    }
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
    default:
        break;
    }
}

/* Receives one message. */
static ALWAYS_INLINE void take_message(enum mechanism mechanism, struct typed_message *message)
{
    switch (mechanism) {
    case PIPE:
    case PTY: {
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
    default:
        break;
    }
}
