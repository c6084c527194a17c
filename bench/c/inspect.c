/* What the measurement `inspect` needs in plain C:
 *
 *   inspect-c crowd PROCESSES DESCRIPTORS   processes with so many descriptors each; prints a line when all are there, and
 *                                           ends them when its standard input does
 *   inspect-c read list|pipe                makes the reads of /proc that `switchboard list` or `list pipe` makes, in a loop and
 *                                           by one thread, keeps nothing, and prints how many descriptors it met
 *   inspect-c run COMMAND...                runs it with its output thrown away; prints nanoseconds and its largest memory in KiB
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* -- crowd -- */

/* Of eleven: six ends of pipes, two of sockets, an eventfd, a file, and an epoll instance or a device. */
static void open_one(int n, int left)
{
    int pair[2], ok;
    switch (n % 7) {
    case 0: case 1: case 2:
        ok = left < 2 ? dup(0) : pipe(pair);
        break;
    case 3:
        ok = left < 2 ? dup(0) : socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
        break;
    case 4: ok = eventfd(0, 0); break;
    case 5: ok = n / 7 % 2 ? epoll_create1(0) : open("/dev/null", O_RDWR); break;
    default: ok = open("/etc/passwd", O_RDONLY); break;
    }
    if (ok < 0)
        die("a descriptor");
}

static int open_count(void)
{
    struct stat status;
    DIR *all = opendir("/proc/self/fd");
    int count = 0;
    if (!all || fstat(dirfd(all), &status))
        die("/proc/self/fd");
    while (readdir(all))
        count++;
    closedir(all);
    return count - 3;
}

static int crowd(int processes, int descriptors)
{
    int ready[2];
    char byte;
    pid_t *all = calloc(processes, sizeof *all);
    if (!all || pipe(ready))
        die("crowd");
    for (int i = 0; i < processes; i++) {
        all[i] = fork();
        if (all[i] < 0)
            die("fork");
        if (all[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ready[0]);
            int has = open_count();
            for (int n = 0; has < descriptors; n++) {
                open_one(n, descriptors - has);
                has = n % 7 < 4 && descriptors - has >= 2 ? has + 2 : has + 1;
            }
            if (write(ready[1], "", 1) != 1)
                die("write");
            for (;;)
                pause();
        }
    }
    for (int i = 0; i < processes; i++)
        if (read(ready[0], &byte, 1) != 1)
            die("read");
    puts("ready");
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
    for (int i = 0; i < processes; i++)
        kill(all[i], SIGKILL);
    for (int i = 0; i < processes; i++)
        waitpid(all[i], NULL, 0);
    return 0;
}

/* -- read -- */

struct entry {
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct query {
    uint64_t size, flags, address, start, end, found, page, offset, inode;
    uint32_t major, minor, name_size, build_id_size;
    uint64_t name, build_id;
};
#define QUERY _IOWR('f', 17, struct query)

static char text[1 << 16];
static dev_t pipes;
static long met;

static void record(int folder, const char *name)
{
    int file = openat(folder, name, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    if (read(file, text, sizeof text) < 0)
        errno = 0;
    close(file);
}

static int look(int folder, const char *name, int flags, struct statx *status)
{
    return statx(folder, name, flags | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, status);
}

static void maps(int folder)
{
    int file = openat(folder, "maps", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return;
    struct query query = { .size = sizeof query, .flags = 8 | 0x10 | 0x20 };
    for (;;) {
        query.name = (uintptr_t)text;
        query.name_size = 4096;
        if (ioctl(file, QUERY, &query)) {
            if (errno == ENOTTY)
                while (read(file, text, sizeof text) > 0)
                    ;
            break;
        }
        query.address = query.end;
        query.build_id_size = 0;
    }
    close(file);
}

static int descriptor(int links, int *infos, int folder, const char *name, int everything)
{
    struct statx status;
    char link[4096];
    if (look(links, name, 0, &status))
        return 0;
    met++;
    if (makedev(status.stx_dev_major, status.stx_dev_minor) == pipes) {
        look(links, name, AT_SYMLINK_NOFOLLOW, &status);
    } else if (everything && (status.stx_mode & S_IFMT) == 0) {
        long n = readlinkat(links, name, link, sizeof link);
        if (n > 20 && !memcmp(link, "anon_inode:[eventfd]", 20)) {
            if (*infos < 0)
                *infos = openat(folder, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            record(*infos, name);
        }
    }
    return 1;
}

static void descriptors(int folder, int everything)
{
    int links = openat(folder, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int infos = -1, gaps = 0, next = 0;
    struct stat status;
    char name[12], list[1 << 15];
    if (links < 0 || fstat(links, &status))
        return;
    long left = status.st_size;
    for (; left > 0 && gaps < 8; next++) {
        sprintf(name, "%d", next);
        if (descriptor(links, &infos, folder, name, everything))
            left--;
        else
            gaps++;
    }
    if (status.st_size == 0 || left > 0) {
        long n;
        while ((n = syscall(SYS_getdents64, links, list, sizeof list)) > 0) {
            for (long at = 0; at < n; at += ((struct entry *)(list + at))->size) {
                const char *name = ((struct entry *)(list + at))->name;
                if (name[0] >= '0' && name[0] <= '9' && atoi(name) >= next)
                    descriptor(links, &infos, folder, name, everything);
            }
        }
    }
    if (infos >= 0)
        close(infos);
    close(links);
}

static void process(int proc, const char *pid, int everything)
{
    static const char *const namespaces[] = { "ns/ipc", "ns/net", "ns/pid", "ns/mnt" };
    char link[64];
    struct stat status;
    int folder = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    record(folder, "stat");
    fstat(folder, &status);
    if (everything)
        for (int i = 0; i < 4; i++)
            if (readlinkat(folder, namespaces[i], link, sizeof link) < 0)
                errno = 0;
    descriptors(folder, everything);
    if (everything) {
        maps(folder);
        record(folder, "syscall");
    }
    close(folder);
}

static int read_all(int everything)
{
    int proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ends[2];
    struct stat status;
    char list[1 << 15];
    long n;
    if (proc < 0 || pipe(ends) || fstat(ends[0], &status))
        die("/proc");
    pipes = status.st_dev;
    if (everything) {
        record(proc, "locks");
        record(proc, "locks");
        record(proc, "sysvipc/msg");
        record(proc, "sysvipc/sem");
        record(proc, "sysvipc/shm");
    }
    while ((n = syscall(SYS_getdents64, proc, list, sizeof list)) > 0)
        for (long at = 0; at < n; at += ((struct entry *)(list + at))->size) {
            const char *name = ((struct entry *)(list + at))->name;
            if (name[0] >= '0' && name[0] <= '9')
                process(proc, name, everything);
        }
    printf("%ld\n", met);
    return 0;
}

/* -- run -- */

static int run(char **command)
{
    struct timespec start, end;
    struct rusage usage;
    int status;
    clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = vfork();
    if (child < 0)
        die("vfork");
    if (child == 0) {
        int nothing = open("/dev/null", O_WRONLY);
        dup2(nothing, 1);
        dup2(nothing, 2);
        execvp(command[0], command);
        _exit(127);
    }
    if (wait4(child, &status, 0, &usage) != child)
        die("wait4");
    clock_gettime(CLOCK_MONOTONIC, &end);
    if (!WIFEXITED(status) || WEXITSTATUS(status) > 1)
        return fprintf(stderr, "%s ended with %d\n", command[0], status), 1;
    printf("%lld %ld\n", (end.tv_sec - start.tv_sec) * 1000000000LL + end.tv_nsec - start.tv_nsec, usage.ru_maxrss);
    return 0;
}

int main(int count, char **words)
{
    if (count == 4 && !strcmp(words[1], "crowd"))
        return crowd(atoi(words[2]), atoi(words[3]));
    if (count == 3 && !strcmp(words[1], "read"))
        return read_all(!strcmp(words[2], "list"));
    if (count > 2 && !strcmp(words[1], "run"))
        return run(words + 2);
    fputs("inspect-c crowd PROCESSES DESCRIPTORS | read list|pipe | run COMMAND...\n", stderr);
    return 2;
}
