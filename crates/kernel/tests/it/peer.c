/* A C program that shares a mutex, a condition variable, a semaphore and words with a test, knowing
 * the C library and the layout that shared_words documents. Reads commands, one a line, and says
 * each with its outcome: 0 or the name of an error. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct object {
    union {
        pthread_mutex_t mutex;
        pthread_cond_t condition;
        sem_t semaphore;
        char bytes[48];
    } of;
    char magic[4];
    uint32_t version;
    uint32_t details;
    _Atomic uint32_t state;
};

struct memory {
    struct object mutex, condition, semaphore;
    _Atomic uint32_t flag, count;
};

_Static_assert(sizeof(struct object) == 64, "as documented");

static const char *error_name(int error) {
    switch (error) {
    case 0: return "0";
    case EOWNERDEAD: return "EOWNERDEAD";
    case ENOTRECOVERABLE: return "ENOTRECOVERABLE";
    case EDEADLK: return "EDEADLK";
    case EBUSY: return "EBUSY";
    case EAGAIN: return "EAGAIN";
    case EPERM: return "EPERM";
    case EINVAL: return "EINVAL";
    case ETIMEDOUT: return "ETIMEDOUT";
    default: return strerror(error);
    }
}

static int begin(struct object *object) {
    uint32_t nothing = 0;
    return atomic_compare_exchange_strong(&object->state, &nothing, 1);
}

static void finish(struct object *object, const char *magic, size_t size, uint32_t details) {
    memcpy(object->magic, magic, 4);
    object->version = 65536 + size;
    object->details = details;
    atomic_store_explicit(&object->state, 2, memory_order_release);
}

static int make(struct memory *memory, int robust, int inherit) {
    if (!begin(&memory->mutex) || !begin(&memory->condition) || !begin(&memory->semaphore))
        return EBUSY;
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    if (robust)
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    if (inherit)
        pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
    int error = pthread_mutex_init(&memory->mutex.of.mutex, &attributes);
    if (error)
        return error;
    finish(&memory->mutex, "SBMX", sizeof(pthread_mutex_t), inherit);

    pthread_condattr_t condition;
    pthread_condattr_init(&condition);
    pthread_condattr_setpshared(&condition, PTHREAD_PROCESS_SHARED);
    error = pthread_cond_init(&memory->condition.of.condition, &condition);
    if (error)
        return error;
    finish(&memory->condition, "SBCV", sizeof(pthread_cond_t), 0);

    if (sem_init(&memory->semaphore.of.semaphore, 1, 0))
        return errno;
    finish(&memory->semaphore, "SBSM", sizeof(sem_t), 0);
    return 0;
}

static int wait_for_flag(struct memory *memory) {
    int error = 0;
    while (!error && !atomic_load(&memory->flag))
        error = pthread_cond_wait(&memory->condition.of.condition, &memory->mutex.of.mutex);
    return error;
}

static int count_up(struct memory *memory, int times) {
    for (int i = 0; i < times; i++) {
        int error = pthread_mutex_lock(&memory->mutex.of.mutex);
        if (error)
            return error;
        uint32_t count = atomic_load_explicit(&memory->count, memory_order_relaxed);
        atomic_store_explicit(&memory->count, count + 1, memory_order_relaxed);
        pthread_mutex_unlock(&memory->mutex.of.mutex);
    }
    return 0;
}

static int run(struct memory *memory, const char *command, const char *argument) {
    static sem_t *semaphore;
    pthread_mutex_t *mutex = &memory->mutex.of.mutex;
    pthread_cond_t *condition = &memory->condition.of.condition;
    if (!semaphore)
        semaphore = &memory->semaphore.of.semaphore;
    if (!strcmp(command, "make"))
        return make(memory, 1, !strcmp(argument, "inherit"));
    if (!strcmp(command, "make_fragile"))
        return make(memory, 0, 0);
    if (!strcmp(command, "lock"))
        return pthread_mutex_lock(mutex);
    if (!strcmp(command, "trylock"))
        return pthread_mutex_trylock(mutex);
    if (!strcmp(command, "timedlock")) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        now.tv_sec += atoi(argument);
        return pthread_mutex_timedlock(mutex, &now);
    }
    if (!strcmp(command, "consistent"))
        return pthread_mutex_consistent(mutex);
    if (!strcmp(command, "unlock"))
        return pthread_mutex_unlock(mutex);
    if (!strcmp(command, "wait"))
        return wait_for_flag(memory);
    if (!strcmp(command, "flag"))
        return atomic_store(&memory->flag, 1), 0;
    if (!strcmp(command, "signal"))
        return pthread_cond_signal(condition);
    if (!strcmp(command, "broadcast"))
        return pthread_cond_broadcast(condition);
    if (!strcmp(command, "count"))
        return count_up(memory, atoi(argument));
    if (!strcmp(command, "sem_wait"))
        return sem_wait(semaphore) ? errno : 0;
    if (!strcmp(command, "sem_post"))
        return sem_post(semaphore) ? errno : 0;
    if (!strcmp(command, "sem_open") || !strcmp(command, "sem_create")) {
        int flags = strcmp(command, "sem_open") ? O_CREAT | O_EXCL : 0;
        sem_t *found = sem_open(argument, flags, 0600, 4);
        if (found == SEM_FAILED)
            return errno;
        semaphore = found;
        return 0;
    }
    if (!strcmp(command, "futex_wait"))
        return syscall(SYS_futex, &memory->flag, FUTEX_WAIT, 0, NULL, NULL, 0) ? errno : 0;
    if (!strcmp(command, "futex_wake"))
        return syscall(SYS_futex, &memory->flag, FUTEX_WAKE, 1, NULL, NULL, 0) == 1 ? 0 : EAGAIN;
    return EINVAL;
}

int main(int arguments, char **argument) {
    int file = arguments > 1 ? open(argument[1], O_RDWR | O_CLOEXEC) : -1;
    void *memory = mmap(NULL, sizeof(struct memory), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED)
        return 1;
    char line[512];
    while (fgets(line, sizeof line, stdin)) {
        char command[64] = "", rest[400] = "";
        sscanf(line, "%63s %399s", command, rest);
        printf("%s %s\n", command, error_name(run(memory, command, rest)));
        fflush(stdout);
    }
    return 0;
}
