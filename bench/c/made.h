/* What is made, opened and removed again: memory of every kind, named semaphores, terminals; and files
 * that are mapped, grown, advised about and written back. Each in the steps of the wrapper, those for
 * safety too.
 *
 * Source: memfd_create(2), shm_overview(7), shmop(2), ftok(3), sem_open(3), pty(7), mmap(2), mremap(2),
 * msync(2), madvise(2), fallocate(2), renameat2(2).
 */
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/vfs.h>

/* A name that no other process uses, and those of an existing segment and semaphore. */
static char own_path[64], segment_path[64], semaphore_path[64];
static char *file_memory;

static void *map_file(int fd, size_t len)
{
    void *start = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED)
        die("mmap");
    return start;
}

static void prepare_made(const char *name)
{
    snprintf(own_path, sizeof own_path, "/dev/shm/switchboard-bench-%d", (int)getpid());
    snprintf(segment_path, sizeof segment_path, "/dev/shm/switchboard-bench-%d", out_id);
    snprintf(semaphore_path, sizeof semaphore_path, "/switchboard-bench-%d", out_id);
    if (strcmp(name, "msync") == 0 || strcmp(name, "mmap-advice") == 0)
        file_memory = map_file(OUT, PAGE);
    if (strcmp(name, "posix-sem-made") == 0)
        snprintf(own_path, sizeof own_path, "/dev/shm/sem.switchboard-bench-%d", (int)getpid());
}

/* RLIMIT_FSIZE is asked for so that no SIGXFSZ comes. */
static void check_limit(size_t len)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur < len)
        die("getrlimit");
}

static void reserve(int fd, size_t len)
{
    check_limit(len);
    if (fallocate(fd, 0, 0, (off_t)len) != 0)
        die("fallocate");
}

/* As Segment::create does, and Semaphore::create, which maps it at once: size or content, owner and mode
 * before the name. */
static int make_unnamed(const void *content, size_t len, void **start)
{
    char unnamed[32];
    int folder = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0);
    snprintf(unnamed, sizeof unnamed, "/proc/self/fd/%d", fd);
    if (fd < 0)
        die("open");
    if (content == NULL)
        reserve(fd, len);
    else if (write(fd, content, len) != (ssize_t)len)
        die("write");
    if (fchmod(fd, 0600) != 0)
        die("fchmod");
    if (start != NULL)
        *start = map_file(fd, len);
    if (linkat(AT_FDCWD, unnamed, folder, own_path + strlen("/dev/shm/"), AT_SYMLINK_FOLLOW) != 0)
        die("linkat");
    close(folder);
    return fd;
}

static int make_memfd(void)
{
    int fd = memfd_create("switchboard-bench", MFD_CLOEXEC | MFD_ALLOW_SEALING | 0x0008U);
    if (fd < 0 || fchmod(fd, 0600) != 0)
        die("memfd_create");
    reserve(fd, PAGE);
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

/* The same, of huge pages, whose size the file system says. */
static ALWAYS_INLINE void *map_huge(int fd, size_t *len)
{
    struct statfs system;
    struct stat status;
    if (fstat(fd, &status) != 0 || fstatfs(fd, &system) != 0)
        die("fstat");
    *len = (size_t)status.st_size;
    void *start = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED || fcntl(fd, F_GET_SEALS) < 0)
        die("mmap");
    return start;
}

/* Mapped once, which reserves all of its pages or none. */
static int make_huge(size_t len)
{
    unsigned size = (unsigned)__builtin_ctzl(len) << 26;
    int fd = memfd_create("switchboard-bench",
                          MFD_CLOEXEC | MFD_ALLOW_SEALING | 0x0008U | MFD_HUGETLB | size);
    if (fd < 0 || fchmod(fd, 0600) != 0)
        die("memfd_create");
    check_limit(len);
    if (ftruncate(fd, (off_t)len) != 0)
        die("ftruncate");
    munmap(map_huge(fd, &len), len);
    return fd;
}

/* Size, owner and mode under a hidden name, which then becomes the real one. */
static int make_hidden(const char *path, size_t len)
{
    char hidden[128], opened[64];
    const char *name = strrchr(path, '/') + 1;
    unsigned long number;
    struct stat status;
    int folder = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0 || getrandom(&number, sizeof number, 0) != sizeof number)
        die("getrandom");
    snprintf(hidden, sizeof hidden, ".%.32s.%016lx", name, number);
    int fd = openat(folder, hidden, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        die("openat");
    reserve(fd, len);
    int object = openat(folder, hidden, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    snprintf(opened, sizeof opened, "/proc/self/fd/%d", object);
    if (object < 0 || fstat(object, &status) != 0 || !S_ISREG(status.st_mode) ||
        chmod(opened, 0600) != 0)
        die("chmod");
    close(object);
    if (renameat2(folder, hidden, folder, name, RENAME_NOREPLACE) != 0)
        die("renameat2");
    close(folder);
    return fd;
}

static ALWAYS_INLINE void make(enum mechanism mechanism)
{
    struct stat status;
    size_t len;
    void *start;
    int fd;
    switch (mechanism) {
    case MEMFD:
        fd = make_memfd();
        start = map_all(fd, &len);
        close(fd);
        munmap(start, len);
        break;
    case MEMFD_SEALED: {
        char opened[64];
        fd = make_memfd();
        snprintf(opened, sizeof opened, "/proc/self/fd/%d", fd);
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
            die("fcntl");
        int received = open(opened, O_RDONLY | O_CLOEXEC);
        if (received < 0 || (fcntl(received, F_GET_SEALS) & F_SEAL_SHRINK) == 0 ||
            fstat(received, &status) != 0)
            die("received");
        len = (size_t)status.st_size;
        start = mmap(NULL, len, PROT_READ, MAP_SHARED, received, 0);
        if (start == MAP_FAILED || fcntl(received, F_GET_SEALS) < 0)
            die("mmap");
        munmap(start, len);
        close(received);
        close(fd);
        break;
    }
    case MEMFD_HUGE:
        len = (size_t)out_id << 10;
        fd = make_huge(len);
        start = map_huge(fd, &len);
        close(fd);
        munmap(start, len);
        break;
    case POSIX_SHM:
        fd = make_unnamed(NULL, PAGE, NULL);
        start = map_all(fd, &len);
        if (unlink(own_path) != 0)
            die("unlink");
        munmap(start, len);
        close(fd);
        break;
    case POSIX_SHM_OPEN:
        fd = open(segment_path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
            die("shm_open");
        start = map_all(fd, &len);
        close(fd);
        munmap(start, len);
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
    case SYSV_SHM_ATTACH: {
        struct shmid_ds found;
        start = shmat(out_id, NULL, 0);
        if (start == (void *)-1 || shmctl(out_id, IPC_STAT, &found) != 0)
            die("shmat");
        shmdt(start);
        break;
    }
    case SYSV_KEY:
        if (ftok("/dev/shm", 1) == -1)
            die("ftok");
        break;
    case POSIX_SEM_MADE: {
        sem_t made;
        if (sem_init(&made, 1, 0) != 0)
            die("sem_init");
        close(make_unnamed(&made, sizeof made, &start));
        if (unlink(own_path) != 0)
            die("sem_unlink");
        munmap(start, sizeof made);
        break;
    }
    case POSIX_SEM_OPEN: {
        int value = 1;
        sem_t *found = sem_open(semaphore_path, 0);
        if (found == SEM_FAILED || sem_getvalue(found, &value) != 0 || value != 0 ||
            sem_close(found) != 0)
            die("sem_open");
        break;
    }
    case PTY_MADE: {
        int unlocked = 0;
        fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (fd < 0 || ioctl(fd, TIOCSPTLCK, &unlocked) != 0)
            die("posix_openpt");
        int slave = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (slave < 0)
            die("TIOCGPTPEER");
        close(slave);
        close(fd);
        break;
    }
    case MMAP_MADE:
        fd = make_hidden(own_path, PAGE);
        start = map_all(fd, &len);
        if (unlink(own_path) != 0)
            die("unlink");
        munmap(start, len);
        close(fd);
        break;
    case MMAP_GROW:
        start = map_all(OUT, &len);
        reserve(OUT, 2 * PAGE);
        start = mremap(start, len, 2 * PAGE, MREMAP_MAYMOVE);
        if (start == MAP_FAILED)
            die("mremap");
        munmap(start, 2 * PAGE);
        check_limit(PAGE);
        if (ftruncate(OUT, PAGE) != 0)
            die("ftruncate");
        break;
    case MMAP_PRIVATE:
        if (fstat(OUT, &status) != 0)
            die("fstat");
        start = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, OUT, 0);
        if (start == MAP_FAILED || fcntl(OUT, F_GET_SEALS) < 0)
            die("mmap");
        *(volatile char *)start = 'x';
        munmap(start, PAGE);
        break;
    case MMAP_ADVICE:
        if (madvise(file_memory, PAGE, MADV_RANDOM) != 0 ||
            madvise(file_memory, PAGE, MADV_NORMAL) != 0)
            die("madvise");
        break;
    case MSYNC:
        unknown(buffer);
        memcpy(file_memory, buffer, BYTES);
        if (msync(file_memory, PAGE, MS_SYNC) != 0)
            die("msync");
        break;
    default:
        break;
    }
}
