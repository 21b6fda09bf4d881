// Callers who ask again as soon as they are answered: N connections, each sending the
// same bytes and waiting for an answer of a known length. It knows no protocol.
//
// usage: closed_loop PORT CONNECTIONS SECONDS FILE ANSWER_BYTES; prints how many were answered

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char request[1 << 16];
static size_t request_bytes, answer_bytes;
static int port;
static volatile int over;
static long answered;
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(1);
}

static void *call(void *unused) {
  static __thread char answer[1 << 16];
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
  int socket_ = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  if (connect(socket_, (void *)&address, sizeof address)) fail("cannot connect");
  setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  long mine = 0;
  while (!over) {
    if (write(socket_, request, request_bytes) != (ssize_t)request_bytes) fail("cannot write");
    size_t got = 0;
    while (got < answer_bytes) {
      ssize_t more = read(socket_, answer + got, sizeof answer - got);
      if (more <= 0) fail("the connection ended");
      got += more;
    }
    if (got != answer_bytes) fail("an answer of another length");
    mine++;
  }
  pthread_mutex_lock(&counting);
  answered += mine;
  pthread_mutex_unlock(&counting);
  return unused;
}

int main(int count, char **arguments) {
  if (count != 6) fail("usage: closed_loop PORT CONNECTIONS SECONDS FILE ANSWER_BYTES");
  port = atoi(arguments[1]);
  int connections = atoi(arguments[2]);
  FILE *file = fopen(arguments[4], "rb");
  if (!file) fail("cannot open FILE");
  request_bytes = fread(request, 1, sizeof request, file);
  answer_bytes = atol(arguments[5]);
  pthread_t callers[256];
  if (connections < 1 || connections > 256) fail("1 to 256 connections");
  for (int i = 0; i < connections; i++) pthread_create(&callers[i], 0, call, 0);
  sleep(atoi(arguments[3]));
  over = 1;
  for (int i = 0; i < connections; i++) pthread_join(callers[i], 0);
  printf("%ld\n", answered);
}
