// Goes between a program and libfaketime. glibc's cnd_timedwait, with which librdkafka waits, calls glibc's own
// pthread_cond_timedwait, past that of libfaketime: it would wait by the real clock for a time of the shifted one.
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    // In glibc both names are of the same things.
    int error = pthread_cond_timedwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, until);
    return error == 0 ? thrd_success : error == ETIMEDOUT ? thrd_timedout : thrd_error;
}
