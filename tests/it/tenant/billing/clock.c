/* The clock of a redis-server whose test lets months pass: gettimeofday tells
 * what the file named by TEST_CLOCK holds, microseconds since 1970 in 8 bytes. It
 * does not know who asks. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  static int file = -1;
  int64_t us;
  (void)zone;
  if (file < 0) file = open(getenv("TEST_CLOCK"), O_RDONLY);
  if (pread(file, &us, sizeof us, 0) != sizeof us) abort();
  now->tv_sec = us / 1000000;
  now->tv_usec = us % 1000000;
  return 0;
}
