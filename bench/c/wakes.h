/* Mechanisms by which processes wake each other. They carry no bytes.
 *
 * Source: sem_post(3), semop(2), futex(2), pthread_cond_wait(3p), sigqueue(3), sigwaitinfo(2),
 * signalfd(2).
 */
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* What is at descriptor 3, if it is memory. */
static char *memory;
/* Who signals go to, which ones there are, and where they are read. */
static pid_t peer;
static sigset_t signals;
static int signal_fd = -1, queued;

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
    if (strcmp(name, "posix-sem") == 0 || strcmp(name, "futex") == 0 ||
        strncmp(name, "pthread", 7) == 0) {
        memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, OUT, 0);
        if (memory == MAP_FAILED)
            die("mmap");
    }
    if (strncmp(name, "signal", 6) != 0 && strcmp(name, "event-signal") != 0)
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
    case FUTEX: {
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
