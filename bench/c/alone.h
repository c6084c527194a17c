/* What one process does for itself: locks that nobody contends for, copies to and from shared memory,
 * bytes moved inside the kernel.
 *
 * Source: flock(2), fcntl(2), inotify(7), splice(2), tee(2), vmsplice(2), memcpy(3).
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>

enum { PIPE_BYTES = 65536 };

static int inotify_fd, first[2], second[2], nowhere;
static struct iovec pages;
static char buffer[PAGE] __attribute__((aligned(64)));

static void prepare_alone(const char *name)
{
    static char zeroes[PIPE_BYTES];
    if (strncmp(name, "memory-", 7) == 0 || strncmp(name, "watched-", 8) == 0) {
        memory = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, OUT, 0);
        if (memory == MAP_FAILED)
            die("mmap");
    } else if (strcmp(name, "inotify") == 0) {
        inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (inotify_add_watch(inotify_fd, "/proc/self/fd/3", IN_MODIFY) < 0)
            die("inotify_add_watch");
    } else if (strcmp(name, "splice") == 0 || strcmp(name, "tee") == 0) {
        if (pipe2(first, O_CLOEXEC) != 0 || pipe2(second, O_CLOEXEC) != 0 ||
            write(first[1], zeroes, PIPE_BYTES) != PIPE_BYTES)
            die("pipe2");
    } else if (strcmp(name, "vmsplice") == 0) {
        if (pipe2(first, O_CLOEXEC) != 0)
            die("pipe2");
        pages.iov_len = PIPE_BYTES;
        pages.iov_base = mmap(NULL, PIPE_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memset(pages.iov_base, 1, PIPE_BYTES);
        if (mprotect(pages.iov_base, PIPE_BYTES, PROT_READ) != 0)
            die("mprotect");
    }
    nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
}

static ALWAYS_INLINE void set_record_lock(int command, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    if (fcntl(OUT, command, &lock) != 0)
        die("fcntl");
}

static ALWAYS_INLINE void move_all(int from, int to)
{
    if (splice(from, NULL, to, NULL, PIPE_BYTES, 0) != PIPE_BYTES)
        die("splice");
}

/* One event, and no more. */
static ALWAYS_INLINE void read_event(void)
{
    ssize_t n = read(inotify_fd, buffer, sizeof buffer);
    int events = 0;
    for (char *at = buffer; at < buffer + n; events++)
        at += sizeof(struct inotify_event) + ((struct inotify_event *)at)->len;
    if (n < 0 || events != 1)
        die("inotify");
}

/* The compiler takes this for code that may read and write any memory, as std::hint::black_box. */
static ALWAYS_INLINE void unknown(const void *at)
{
    __asm__ volatile("" : : "r"(at) : "memory");
}

static ALWAYS_INLINE void copy_in(size_t len)
{
    unknown(buffer);
    memcpy(memory + PAGE, buffer, len);
}

static ALWAYS_INLINE void copy_out(size_t len)
{
    unknown(buffer);
    memcpy(buffer, memory + PAGE, len);
}

static ALWAYS_INLINE void once(enum mechanism mechanism)
{
    switch (mechanism) {
    case PTHREAD_MUTEX:
        if (pthread_mutex_unlock(lock_mutex()) != 0)
            die("pthread_mutex_unlock");
        break;
    case FLOCK:
        if (flock(OUT, LOCK_EX) != 0 || flock(OUT, LOCK_UN) != 0)
            die("flock");
        break;
    case PROCESS_LOCK:
        set_record_lock(F_SETLKW, F_WRLCK);
        set_record_lock(F_SETLK, F_UNLCK);
        break;
    case OPEN_FILE_LOCK:
        set_record_lock(F_OFD_SETLKW, F_WRLCK);
        set_record_lock(F_OFD_SETLK, F_UNLCK);
        break;
    case INOTIFY:
        if (pwrite(OUT, "x", 1, 0) != 1)
            die("pwrite");
        read_event();
        break;
    case SPLICE:
        move_all(first[0], second[1]);
        move_all(second[0], first[1]);
        break;
    case TEE:
        if (tee(first[0], second[1], PIPE_BYTES, 0) != PIPE_BYTES)
            die("tee");
        move_all(second[0], nowhere);
        break;
    case VMSPLICE:
        if (vmsplice(first[1], &pages, 1, 0) != PIPE_BYTES)
            die("vmsplice");
        move_all(first[0], nowhere);
        break;
    case MEMORY_IN_64:
        copy_in(BYTES);
        break;
    case MEMORY_OUT_64:
        copy_out(BYTES);
        break;
    case MEMORY_IN_4096:
        copy_in(PAGE);
        break;
    case MEMORY_OUT_4096:
        copy_out(PAGE);
        break;
    default:
        break;
    }
}
