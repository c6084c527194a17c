/* What one process does for itself: locks that nobody contends for, copies to and from shared memory,
 * memory made and removed, bytes moved inside the kernel.
 *
 * Source: flock(2), fcntl(2), inotify(7), splice(2), tee(2), vmsplice(2), memcpy(3), memfd_create(2),
 * shm_overview(7), shmop(2).
 */
#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/shm.h>

enum { PIPE_BYTES = 65536 };

static int inotify_fd, first[2], second[2], nowhere;
static char shm_name[64];
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
    snprintf(shm_name, sizeof shm_name, "/dev/shm/switchboard-bench-%d", (int)getpid());
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

/* As Segment::create does: size, owner and mode before the name. */
static int make_segment(void)
{
    char unnamed[32];
    int folder = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0);
    struct rlimit limit;
    snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", fd);
    if (fd < 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < PAGE ||
        fallocate(fd, 0, 0, PAGE) != 0 || fchmod(fd, 0600) != 0 ||
        linkat(AT_FDCWD, unnamed, folder, shm_name + strlen("/dev/shm/"), AT_SYMLINK_FOLLOW) != 0)
        die("open");
    close(folder);
    return fd;
}

static int make_memfd(void)
{
    int fd = memfd_create("switchboard-bench", MFD_CLOEXEC | MFD_ALLOW_SEALING | 0x0008U);
    struct rlimit limit;
    if (fd < 0 || fchmod(fd, 0600) != 0 || getrlimit(RLIMIT_FSIZE, &limit) != 0 ||
        limit.rlim_cur < PAGE || fallocate(fd, 0, 0, PAGE) != 0)
        die("memfd_create");
    return fd;
}

/* All of a file, as long as it is now, and whether it can be cut short. */
static ALWAYS_INLINE void *map_all(int fd, size_t *len)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        die("fstat");
    *len = (size_t)status.st_size;
    void *start = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED || fcntl(fd, F_GET_SEALS) < 0)
        die("mmap");
    return start;
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
    size_t len;
    void *start;
    int fd;
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
    case MEMFD:
        fd = make_memfd();
        start = map_all(fd, &len);
        close(fd);
        munmap(start, len);
        break;
    case POSIX_SHM:
        fd = make_segment();
        start = map_all(fd, &len);
        if (unlink(shm_name) != 0)
            die("unlink");
        munmap(start, len);
        close(fd);
        break;
    case SYSV_SHM: {
        struct shmid_ds status;
        int id = shmget(IPC_PRIVATE, PAGE, IPC_CREAT | IPC_EXCL | 0600);
        start = shmat(id, NULL, 0);
        if (start == (void *)-1 || shmctl(id, IPC_STAT, &status) != 0 ||
            shmctl(id, IPC_RMID, NULL) != 0)
            die("shmctl");
        shmdt(start);
        break;
    }
    default:
        break;
    }
}
