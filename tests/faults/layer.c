/* A layer between a process and its files, by LD_PRELOAD: at the n-th operation that changes a file below one folder it
   kills the process, raises a signal, answers with an error, or lets the clock jump.

   The variable BENCH_FAULT, or a call of bench_fault(), says what, in fields apart by a unit separator (0x1f):
   folder, part of the path ("" for any), n (0: never), action, value, lasting (0 or 1), file of the count, file to note in.
   Actions: kill (after value microseconds), signal (number), error (errno), clock (seconds). The count lies in a file that
   all processes of a command share, so that it happens once; with `lasting` all later operations fail as well. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct shared { long count; long jump; };

static char folder[PATH_MAX], part[256], action[16];
static long moment, value, lasting;
static int armed, note = -1;
static struct shared *state;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int real_open(const char *path, int flags) {
    static int (*call)(const char *, int, ...);
    if (!call) call = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64");
    return call(path, flags | O_CLOEXEC, 0600);
}

void bench_fault(const char *given) {
    char *fields[8], *copy = strdup(given), *rest = copy;
    armed = 0;
    for (int at = 0; at < 8; at++) {
        fields[at] = strsep(&rest, "\x1f");
        if (!fields[at]) return;
    }
    snprintf(folder, sizeof folder, "%s/", fields[0]);
    snprintf(part, sizeof part, "%s", fields[1]);
    moment = atol(fields[2]);
    snprintf(action, sizeof action, "%s", fields[3]);
    value = atol(fields[4]);
    lasting = atol(fields[5]);
    int file = real_open(fields[6], O_RDWR | O_CREAT);
    if (file < 0) return;
    if (ftruncate(file, sizeof(struct shared))) {}
    state = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (*fields[7]) note = fcntl(real_open(fields[7], O_WRONLY | O_CREAT | O_APPEND), F_DUPFD_CLOEXEC, 900);
    free(copy);
    armed = state != MAP_FAILED;
}

__attribute__((constructor)) static void begin(void) {
    const char *given = getenv("BENCH_FAULT");
    if (given) bench_fault(given);
}

static void *die_later(void *unused) {
    usleep(value);
    kill(getpid(), SIGKILL);
    return unused;
}

/* Whether the operation on `path` is to fail; errno is set then. It may not return at all. */
static int fails(const char *name, const char *path) {
    if (!armed || strncmp(path, folder, strlen(folder)) || (*part && !strstr(path + strlen(folder), part))) return 0;
    long now = __sync_add_and_fetch(&state->count, 1);
    if (note >= 0) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        dprintf(note, "%ld %ld.%06ld %s %s\n", now, (long)t.tv_sec, t.tv_nsec / 1000, name, path + strlen(folder));
    }
    if (!moment || now < moment || (now > moment && !lasting)) return 0;
    if (!strcmp(action, "kill")) {
        pthread_t thread;
        if (!value) kill(getpid(), SIGKILL);
        else if (!pthread_create(&thread, NULL, die_later, NULL)) pthread_detach(thread);
    } else if (!strcmp(action, "signal")) {
        kill(getpid(), (int)value);
    } else if (!strcmp(action, "clock")) {
        state->jump = value;
    } else {
        errno = (int)value;
        return 1;
    }
    return 0;
}

static int fails_at(const char *name, int directory, const char *path) {
    char whole[PATH_MAX], link[64];
    if (!armed || !path) return 0;
    if (*path == '/') return fails(name, path);
    ssize_t size;
    if (directory == AT_FDCWD) size = getcwd(whole, sizeof whole) ? (ssize_t)strlen(whole) : -1;
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
        size = readlink(link, whole, sizeof whole - 1);
    }
    if (size < 0 || size + strlen(path) + 2 > sizeof whole) return 0;
    snprintf(whole + size, sizeof whole - size, "/%s", path);
    return fails(name, whole);
}

static int fails_on(const char *name, int file) {
    char whole[PATH_MAX], link[64];
    if (!armed || file < 3 || file == note) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t size = readlink(link, whole, sizeof whole - 1);
    if (size < 0) return 0;
    whole[size] = 0;
    return fails(name, whole);
}

#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE(flags) va_list rest; va_start(rest, flags); mode_t mode = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; va_end(rest)
#define OPEN(name) int name(const char *path, int flags, ...) { REAL(name); MODE(flags); \
    if (WRITES(flags) && fails_at("open", AT_FDCWD, path)) return -1; return real(path, flags, mode); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) { REAL(name); MODE(flags); \
    if (WRITES(flags) && fails_at("open", at, path)) return -1; return real(at, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

ssize_t write(int file, const void *data, size_t size) { REAL(write); return fails_on("write", file) ? -1 : real(file, data, size); }
ssize_t writev(int file, const struct iovec *data, int parts) { REAL(writev); return fails_on("write", file) ? -1 : real(file, data, parts); }
ssize_t pwrite(int file, const void *data, size_t size, off_t at) { REAL(pwrite); return fails_on("write", file) ? -1 : real(file, data, size, at); }
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) { REAL(pwrite64); return fails_on("write", file) ? -1 : real(file, data, size, at); }
ssize_t pwritev(int file, const struct iovec *data, int parts, off_t at) { REAL(pwritev); return fails_on("write", file) ? -1 : real(file, data, parts, at); }
ssize_t sendfile(int to, int from, off_t *at, size_t size) { REAL(sendfile); return fails_on("write", to) ? -1 : real(to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { REAL(sendfile64); return fails_on("write", to) ? -1 : real(to, from, at, size); }
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t size, unsigned flags) {
    REAL(copy_file_range); return fails_on("write", to) ? -1 : real(from, at, to, there, size, flags); }
int ftruncate(int file, off_t size) { REAL(ftruncate); return fails_on("truncate", file) ? -1 : real(file, size); }
int ftruncate64(int file, off64_t size) { REAL(ftruncate64); return fails_on("truncate", file) ? -1 : real(file, size); }
int fsync(int file) { REAL(fsync); return fails_on("sync", file) ? -1 : real(file); }
int fdatasync(int file) { REAL(fdatasync); return fails_on("sync", file) ? -1 : real(file); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return fails_at("mkdir", AT_FDCWD, path) ? -1 : real(path, mode); }
int rename(const char *from, const char *to) { REAL(rename); return fails_at("rename", AT_FDCWD, to) ? -1 : real(from, to); }
int renameat(int at, const char *from, int there, const char *to) { REAL(renameat); return fails_at("rename", there, to) ? -1 : real(at, from, there, to); }
int link(const char *from, const char *to) { REAL(link); return fails_at("link", AT_FDCWD, to) ? -1 : real(from, to); }
int linkat(int at, const char *from, int there, const char *to, int flags) { REAL(linkat); return fails_at("link", there, to) ? -1 : real(at, from, there, to, flags); }
int unlink(const char *path) { REAL(unlink); return fails_at("unlink", AT_FDCWD, path) ? -1 : real(path); }
int unlinkat(int at, const char *path, int flags) { REAL(unlinkat); return fails_at("unlink", at, path) ? -1 : real(at, path, flags); }
int rmdir(const char *path) { REAL(rmdir); return fails_at("unlink", AT_FDCWD, path) ? -1 : real(path); }

int clock_gettime(clockid_t clock, struct timespec *t) {
    REAL(clock_gettime);
    int status = real(clock, t);
    if (!status && clock == CLOCK_REALTIME && armed) t->tv_sec += state->jump;
    return status;
}
