/* Hostile code in a process, as a hole in the program would let in: loaded into it by the test, it runs on one of the threads of
   the runtime, tries what the sandbox must not permit, and writes `WHAT ERRNO` lines to the file HOLE_REPORT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static FILE *report;
static pthread_once_t once = PTHREAD_ONCE_INIT;

__attribute__((constructor)) static void begin(void) {
    report = fopen(getenv("HOLE_REPORT"), "we");
    unsetenv("LD_PRELOAD");
}

static void tell(const char *what, int failed) {
    fprintf(report, "%s %d\n", what, failed ? errno : 0);
}

/* `open` of the file that a variable names. */
static void try_open(const char *what, const char *variable, int flags) {
    int fd = open(getenv(variable), flags | O_CLOEXEC, 0600);
    tell(what, fd < 0);
    if (fd >= 0) close(fd);
}

/* `call` with a loopback address of the port that a variable names. */
static void try_port(const char *what, const char *variable, int call(int, const struct sockaddr *, socklen_t)) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv(variable)))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tell(what, call(fd, (struct sockaddr *)&address, sizeof address) < 0);
    close(fd);
}

static void try_abstract_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(getenv("HOLE_SOCKET"));
    memcpy(address.sun_path + 1, getenv("HOLE_SOCKET"), length);
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + length;
    tell("abstract-socket", connect(fd, (struct sockaddr *)&address, size) < 0);
    close(fd);
}

static void try_all(void) {
    while (access(getenv("HOLE_GO"), F_OK) != 0) usleep(10000);
    try_open("read-token", "HOLE_TOKEN", O_RDONLY);
    try_open("write-token", "HOLE_TOKEN", O_WRONLY);
    try_open("truncate-token", "HOLE_TOKEN", O_RDONLY | O_TRUNC);
    try_open("read-outside", "HOLE_OUTSIDE", O_RDONLY);
    try_open("read-kubeconfig", "KUBECONFIG", O_RDONLY);
    try_open("list-root", "HOLE_ROOT", O_RDONLY | O_DIRECTORY);
    try_open("create", "HOLE_NEW", O_WRONLY | O_CREAT);
    tell("remove", unlink(getenv("HOLE_OUTSIDE")) < 0);
    tell("execute", execl("/bin/true", "true", (char *)0) < 0);
    try_port("listen", "HOLE_PORT", bind);
    try_port("connect", "HOLE_SERVER", connect);
    try_abstract_socket();
    tell("signal", kill(atoi(getenv("HOLE_PROCESS")), 0) < 0);
    fprintf(report, "end 0\n");
    fclose(report);
}

int epoll_wait(int epoll, struct epoll_event *events, int count, int timeout) {
    int (*real)(int, struct epoll_event *, int, int) = dlsym(RTLD_NEXT, "epoll_wait");
    if (gettid() != getpid()) pthread_once(&once, try_all);
    return real(epoll, events, count, timeout);
}
