// Goes between a program and libfaketime, and does what that does not.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

// glibc's cnd_timedwait, with which librdkafka waits, calls glibc's own pthread_cond_timedwait, past that of libfaketime: it
// would wait by the real clock for a time of the shifted one.
int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    // In glibc both names are of the same things.
    int error = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}

// jemalloc looks at the clock and makes a condition while it begins, and libfaketime allocates when it is called first: each waits
// for the other. So both come from the kernel and from glibc until the program's libraries are there; then libfaketime is called
// for the first time.
typedef int clock_fn(clockid_t, struct timespec *);
typedef int init_fn(pthread_cond_t *, const pthread_condattr_t *);
static _Atomic(clock_fn *) shifted;
static _Atomic(init_fn *) noted;

int clock_gettime(clockid_t clock, struct timespec *now) {
    clock_fn *ask = atomic_load_explicit(&shifted, memory_order_acquire);
    return ask ? ask(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
}

int pthread_cond_init(pthread_cond_t *condition, const pthread_condattr_t *attributes) {
    init_fn *make = atomic_load_explicit(&noted, memory_order_acquire);
    if (!make && !attributes)
        return cnd_init((cnd_t *)condition) == thrd_success ? 0 : EAGAIN;
    if (!make)
        make = (init_fn *)dlsym(RTLD_NEXT, "pthread_cond_init");
    return make(condition, attributes);
}

__attribute__((constructor)) static void begin(void) {
    struct timespec now;
    clock_fn *ask = (clock_fn *)dlsym(RTLD_NEXT, "clock_gettime");
    init_fn *make = (init_fn *)dlsym(RTLD_NEXT, "pthread_cond_init");
    if (ask && make && ask(CLOCK_REALTIME, &now) == 0) {
        atomic_store_explicit(&noted, make, memory_order_release);
        atomic_store_explicit(&shifted, ask, memory_order_release);
    }
}
