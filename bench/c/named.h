/* What the patterns use, as plain C would use it: objects that are found by a name or key.
 *
 * Source: sem_overview(7), sysvipc(7), shm_overview(7), memcpy(3), futex(2).
 */
static sem_t *out_sem, *in_sem;
/* A value each way: a word that counts, and the bytes at VALUE. */
static char *out_value, *in_value;
static uint32_t out_count, in_count;

enum { VALUE = 64 };

static const char *name_of(int id)
{
    static char name[32];
    snprintf(name, sizeof name, "/switchboard-bench-%d", id);
    return name;
}

static char *map_named(int id)
{
    int fd = shm_open(name_of(id), O_RDWR, 0);
    char *start = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || start == MAP_FAILED)
        die("shm_open");
    return start;
}

static void prepare_named(const char *name)
{
    if (strcmp(name, "event-sem") == 0 || strcmp(name, "posix-sem-named") == 0) {
        out_sem = sem_open(name_of(out_id), 0);
        in_sem = sem_open(name_of(in_id), 0);
        if (out_sem == SEM_FAILED || in_sem == SEM_FAILED)
            die("sem_open");
    } else if (strcmp(name, "event-sysv-sem") == 0) {
        out_id = semget(out_id, 0, 0);
        in_id = semget(in_id, 0, 0);
        if (out_id < 0 || in_id < 0)
            die("semget");
    } else if (strcmp(name, "state-watch") == 0) {
        out_value = map_named(out_id);
        in_value = map_named(in_id);
        meet();
    } else if (strncmp(name, "state-", 6) == 0) {
        memory = map_named(out_id);
    }
}

static ALWAYS_INLINE void put_named(enum mechanism mechanism, const char *text)
{
    if (mechanism == NAMED_SEM) {
        if (sem_post(out_sem) != 0)
            die("sem_post");
        return;
    }
    uint32_t *word = (uint32_t *)out_value;
    memcpy(out_value + VALUE, text, BYTES);
    __atomic_store_n(word, ++out_count, __ATOMIC_RELEASE);
    if (syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0) < 0)
        die("futex");
}

static ALWAYS_INLINE void take_named(enum mechanism mechanism, char *text)
{
    if (mechanism == NAMED_SEM) {
        if (sem_wait(in_sem) != 0)
            die("sem_wait");
        return;
    }
    uint32_t *word = (uint32_t *)in_value, now;
    while ((now = __atomic_load_n(word, __ATOMIC_ACQUIRE)) == in_count)
        syscall(SYS_futex, word, FUTEX_WAIT, now, NULL, NULL, 0);
    in_count = now;
    memcpy(text, in_value + VALUE, BYTES);
}
