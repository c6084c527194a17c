/* Processes: started and waited for, orphaned and adopted, looked at, and interrupted by a signal of
 * their own.
 *
 * Source: fork(2), execve(2), close_range(2), pidfd_open(2), waitid(2), prctl(2), proc_pid_stat(5),
 * sigaction(2), tgkill(2).
 */
#include <errno.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static pid_t own, thread;
static uint64_t came;

static void count(int number)
{
    (void)number;
    __atomic_add_fetch(&came, 1, __ATOMIC_RELEASE);
}

static void prepare_processes(const char *name)
{
    own = getpid();
    thread = gettid();
    struct sigaction action = {.sa_handler = count, .sa_flags = SA_RESTART};
    if (strcmp(name, "signal-handler") == 0 && sigaction(SIGUSR1, &action, NULL) != 0)
        die("sigaction");
    if (strcmp(name, "orphan") == 0 && prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
        die("prctl");
}

/* As Spawn does: nothing is inherited but the standard streams, signals are as programs expect them,
 * and an execve that fails is told over a socket. */
static void spawn_and_wait(const char *const *words, pid_t *child, int *pidfd)
{
    int ends[2], error;
    sigset_t none;
    siginfo_t ended;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        die("socketpair");
    *child = fork();
    if (*child < 0)
        die("fork");
    if (*child == 0) {
        close(ends[0]);
        signal(SIGPIPE, SIG_DFL);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        signal(SIGXFSZ, SIG_DFL);
        syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
        execve(words[0], (char *const *)words, environ);
        error = errno;
        send(ends[1], &error, sizeof error, MSG_NOSIGNAL);
        _exit(1);
    }
    close(ends[1]);
    if (recv(ends[0], &error, sizeof error, 0) != 0)
        die("execve");
    close(ends[0]);
    *pidfd = (int)syscall(SYS_pidfd_open, *child, 0);
    if (*pidfd < 0 || waitid(P_PIDFD, (id_t)*pidfd, &ended, WEXITED) != 0 || ended.si_status != 0)
        die("waitid");
}

/* All of /proc/PID/stat, and what comes after the name, which may be anything. */
static void read_stat(void)
{
    char path[32], text[1024], state;
    int parent, group, session;
    unsigned long long started;
    size_t len = 0;
    ssize_t n;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)own);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (len < sizeof text - 1 && (n = read(fd, text + len, sizeof text - 1 - len)) > 0)
        len += (size_t)n;
    close(fd);
    text[len] = '\0';
    char *name_end = strrchr(text, ')');
    if (name_end == NULL || strtol(text, NULL, 10) != own ||
        sscanf(name_end + 1,
               " %c %d %d %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &state,
               &parent, &group, &session, &started) != 5)
        die("stat");
}

static ALWAYS_INLINE void treat_process(enum mechanism mechanism)
{
    static const char *const nothing[] = {"/bin/true", NULL};
    /* It does not wait for what it starts. */
    static const char *const leaver[] = {"/usr/bin/setsid", "--fork", "/bin/true", NULL};
    struct timespec at_once = {0, 0};
    pid_t child;
    int fd, status;
    switch (mechanism) {
    case PIDFD: {
        fd = (int)syscall(SYS_pidfd_open, own, 0);
        struct pollfd ended = {.fd = fd, .events = POLLIN};
        if (fd < 0 || ppoll(&ended, 1, &at_once, NULL) != 0)
            die("pidfd_open");
        close(fd);
        break;
    }
    case PROCESS_STAT:
        read_stat();
        break;
    case SPAWN:
        spawn_and_wait(nothing, &child, &fd);
        close(fd);
        break;
    case ORPHAN: {
        spawn_and_wait(leaver, &child, &fd);
        pid_t orphan = waitpid(-1, &status, 0);
        if (orphan < 0 || orphan == child || status != 0)
            die("waitpid");
        close(fd);
        break;
    }
    case SIGNAL_HANDLER: {
        uint64_t before = __atomic_load_n(&came, __ATOMIC_RELAXED);
        if (syscall(SYS_tgkill, own, thread, SIGUSR1) != 0 ||
            __atomic_load_n(&came, __ATOMIC_RELAXED) != before + 1)
            die("tgkill");
        break;
    }
    default:
        break;
    }
}
