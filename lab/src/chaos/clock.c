/* Preloaded into replicas and into the private Postgres of the fault suite: their clocks run fast or slow, or are set.
 *
 * DMS_CLOCK_PPM   how many parts in a million all clocks run fast, from the start of the process on; negative: slow
 * DMS_CLOCK_FILE  a file of eight bytes, by how many microseconds the wall clock is ahead; may be changed at any time
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL

static const int64_t unset = 0;
static const volatile int64_t *ahead_us = &unset;
static int64_t ppm, begun;

static int64_t asked(clockid_t clock)
{
    struct timespec now;
    if (syscall(SYS_clock_gettime, clock, &now) != 0)
        return -1;
    return now.tv_sec * SECOND + now.tv_nsec;
}

__attribute__((constructor)) static void prepare(void)
{
    const char *rate = getenv("DMS_CLOCK_PPM"), *path = getenv("DMS_CLOCK_FILE");
    begun = asked(CLOCK_MONOTONIC);
    if (rate)
        ppm = atoll(rate);
    if (path) {
        int file = open(path, O_RDONLY | O_CLOEXEC);
        void *shared = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *ahead_us, PROT_READ, MAP_SHARED, file, 0);
        if (shared == MAP_FAILED)
            abort();
        close(file);
        ahead_us = shared;
    }
}

static int64_t shown(clockid_t clock)
{
    int64_t now = asked(clock);
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        now += *ahead_us * 1000;
        /* fall through */
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        /* All clocks drift by as much as the monotonic one has since the start. */
        if (ppm)
            now += (int64_t)((__int128)(asked(CLOCK_MONOTONIC) - begun) * ppm / 1000000);
    }
    return now;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int64_t now;
    if (asked(clock) < 0)
        return -1;
    now = shown(clock);
    time->tv_sec = now / SECOND;
    time->tv_nsec = now % SECOND;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    int64_t now = shown(CLOCK_REALTIME);
    (void)zone;
    time->tv_sec = now / SECOND;
    time->tv_usec = now % SECOND / 1000;
    return 0;
}

time_t time(time_t *where)
{
    time_t now = shown(CLOCK_REALTIME) / SECOND;
    if (where)
        *where = now;
    return now;
}
