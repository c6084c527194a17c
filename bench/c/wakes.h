/* Mechanisms by which processes wake each other. They carry no bytes.
 *
 * Source: sem_post(3), semop(2), futex(2), futex_waitv in the kernel's futex2.rst,
 * pthread_cond_wait(3p), sigqueue(3), sigwaitinfo(2), signalfd(2), timerfd_create(2), epoll(7).
 */
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>

/* What is at descriptor 3, if it is memory. */
static char *memory;
/* Who signals go to, which ones there are, and where they are read. */
static pid_t peer;
static sigset_t signals;
static int signal_fd = -1, queued;
static int timer_fd = -1, event_fd = -1, epoll_fd = -1;
static struct epoll_event watched = {.events = EPOLLIN, .data.u64 = 7};

/* Tells the other side who this is, and waits until it has done so too. */
static void meet(void)
{
    pid_t self = getpid();
    if (write(OUT, &self, sizeof self) != sizeof self || read(IN, &peer, sizeof peer) != sizeof peer)
        die("pid");
}

/* Maps the memory; or blocks the signal and tells the other side who to send it to. */
static void prepare_wakes(const char *name)
{
    if (strcmp(name, "posix-sem") == 0 || strncmp(name, "futex", 5) == 0 ||
        strncmp(name, "pthread", 7) == 0) {
        memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, OUT, 0);
        if (memory == MAP_FAILED)
            die("mmap");
    }
    if (strncmp(name, "timerfd", 7) == 0)
        timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (strncmp(name, "epoll", 5) == 0) {
        event_fd = eventfd(0, EFD_CLOEXEC);
        epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        if (strcmp(name, "epoll") == 0 &&
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &watched) != 0)
            die("epoll_ctl");
    }
    if (strcmp(name, "signal-handler") == 0 || (strncmp(name, "signal", 6) != 0 && strcmp(name, "event-signal") != 0))
        return;
    queued = SIGRTMIN;
    sigemptyset(&signals);
    sigaddset(&signals, queued);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) != 0)
        die("sigprocmask");
    meet();
    signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0)
        die("signalfd");
}

static ALWAYS_INLINE void change_semaphore(int id, short by)
{
    struct sembuf operation = {.sem_num = 0, .sem_op = by, .sem_flg = 0};
    if (semop(id, &operation, 1) != 0)
        die("semop");
}

/* Both semaphores of a set, or one with what is put back at the end of the process. */
static ALWAYS_INLINE void change_semaphores(enum mechanism mechanism, short by)
{
    short flags = mechanism == SYSV_SEM_UNDO ? SEM_UNDO : 0;
    struct sembuf operations[2] = {{.sem_num = 0, .sem_op = by, .sem_flg = flags},
                                   {.sem_num = 1, .sem_op = by, .sem_flg = flags}};
    if (semop(out_id, operations, mechanism == SYSV_SEM_UNDO ? 1 : 2) != 0)
        die("semop");
}

/* Returns how often the timer has expired. */
static ALWAYS_INLINE uint64_t set_timer(time_t seconds, long nanoseconds, int wait)
{
    struct itimerspec times = {.it_value = {seconds, nanoseconds}};
    struct pollfd readable = {.fd = timer_fd, .events = POLLIN};
    uint64_t expired = 0;
    if (timerfd_settime(timer_fd, 0, &times, NULL) != 0 || (wait && ppoll(&readable, 1, NULL, NULL) < 0))
        die("timerfd_settime");
    return read(timer_fd, &expired, sizeof expired) == sizeof expired ? expired : 0;
}

static ALWAYS_INLINE void wait_by_epoll(void)
{
    struct epoll_event events[8];
    uint64_t count = 1;
    if (write(event_fd, &count, sizeof count) != sizeof count)
        die("write");
    int found = epoll_pwait(epoll_fd, events, 8, -1, NULL);
    for (int i = 0; i < found; i++)
        if (events[i].data.u64 != 7 || (events[i].events & EPOLLIN) == 0)
            die("epoll_pwait");
    if (found < 1 || read(event_fd, &count, sizeof count) != sizeof count || count != 1)
        die("read");
}

/* A robust mutex of which no holder died. */
static ALWAYS_INLINE pthread_mutex_t *lock_mutex(void)
{
    pthread_mutex_t *mutex = (pthread_mutex_t *)(memory + MUTEX);
    if (pthread_mutex_lock(mutex) != 0)
        die("pthread_mutex_lock");
    return mutex;
}

static ALWAYS_INLINE void put_wake(enum mechanism mechanism)
{
    switch (mechanism) {
    case POSIX_SEM:
        if (sem_post((sem_t *)(memory + out_id)) != 0)
            die("sem_post");
        break;
    case SYSV_SEM:
        change_semaphore(out_id, 1);
        break;
    case SYSV_SEM_UNDO:
    case SYSV_SEM_SEVERAL:
        change_semaphores(mechanism, 1);
        break;
    case TIMERFD:
        if (set_timer(0, 1, 1) != 1)
            die("timerfd");
        break;
    case TIMERFD_IDLE:
        if (set_timer(3600, 0, 0) != 0)
            die("timerfd");
        break;
    case EPOLL:
        wait_by_epoll();
        break;
    case EPOLL_ADD:
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &watched) != 0 ||
            epoll_ctl(epoll_fd, EPOLL_CTL_DEL, event_fd, NULL) != 0)
            die("epoll_ctl");
        break;
    case FUTEX:
    case FUTEX_WAITV: {
        uint32_t *word = (uint32_t *)(memory + out_id);
        __atomic_store_n(word, 1, __ATOMIC_RELEASE);
        if (syscall(SYS_futex, word, FUTEX_WAKE_BITSET, 1, NULL, NULL, FUTEX_BITSET_MATCH_ANY) < 0)
            die("futex");
        break;
    }
    case PTHREAD: {
        pthread_mutex_t *mutex = lock_mutex();
        *(uint32_t *)(memory + WORDS + out_id) = 1;
        if (pthread_cond_signal((pthread_cond_t *)(memory + out_id)) != 0)
            die("pthread_cond_signal");
        if (pthread_mutex_unlock(mutex) != 0)
            die("pthread_mutex_unlock");
        break;
    }
    case SIGNAL:
    case SIGNALFD:
        if (sigqueue(peer, queued, (union sigval){.sival_int = 1}) != 0)
            die("sigqueue");
        break;
    default:
        break;
    }
}

static ALWAYS_INLINE void take_wake(enum mechanism mechanism)
{
    switch (mechanism) {
    case POSIX_SEM:
        if (sem_wait((sem_t *)(memory + in_id)) != 0)
            die("sem_wait");
        break;
    case SYSV_SEM:
        change_semaphore(in_id, -1);
        break;
    case FUTEX: {
        uint32_t *word = (uint32_t *)(memory + in_id);
        do
            syscall(SYS_futex, word, FUTEX_WAIT_BITSET, 0, NULL, NULL, FUTEX_BITSET_MATCH_ANY);
        while (__atomic_exchange_n(word, 0, __ATOMIC_ACQUIRE) != 1);
        break;
    }
    case FUTEX_WAITV: {
        uint32_t *word = (uint32_t *)(memory + in_id);
        struct futex_waitv words[2] = {
            {.val = 0, .uaddr = (uintptr_t)word, .flags = FUTEX_32},
            {.val = 0, .uaddr = (uintptr_t)(memory + MUTEX), .flags = FUTEX_32}};
        do
            if (syscall(SYS_futex_waitv, words, 2, 0, NULL, CLOCK_MONOTONIC) == 1)
                die("futex_waitv");
        while (__atomic_exchange_n(word, 0, __ATOMIC_ACQUIRE) != 1);
        break;
    }
    case SYSV_SEM_UNDO:
    case SYSV_SEM_SEVERAL:
        change_semaphores(mechanism, -1);
        break;
    case PTHREAD: {
        pthread_mutex_t *mutex = lock_mutex();
        uint32_t *come = (uint32_t *)(memory + WORDS + in_id);
        while (*come == 0)
            if (pthread_cond_wait((pthread_cond_t *)(memory + in_id), mutex) != 0)
                die("pthread_cond_wait");
        *come = 0;
        if (pthread_mutex_unlock(mutex) != 0)
            die("pthread_mutex_unlock");
        break;
    }
    case SIGNAL: {
        siginfo_t info;
        if (sigwaitinfo(&signals, &info) < 0 || info.si_value.sival_int != 1)
            die("sigwaitinfo");
        break;
    }
    case SIGNALFD: {
        struct signalfd_siginfo info;
        struct pollfd readable = {.fd = signal_fd, .events = POLLIN};
        while (read(signal_fd, &info, sizeof info) != sizeof info)
            if (ppoll(&readable, 1, NULL, NULL) < 0)
                die("ppoll");
        if (info.ssi_int != 1)
            die("signalfd");
        break;
    }
    default:
        break;
    }
}
