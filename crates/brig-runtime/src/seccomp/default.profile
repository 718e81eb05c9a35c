# The system calls that a container may make when nothing else is said. Everything else answers EPERM, and calls that are
# newer than the newest one named here answer ENOSYS, so that programs fall back as on an older kernel.
#
# A block is one line that starts at the margin, and indented lines with names:
#
#   allow | errno NUMBER   [when CONDITION]...   [if cap NAME...] [unless cap NAME...] [if arch NAME...]
#   CONDITION: argN == VALUE | argN < VALUE | argN & MASK == VALUE
#
# What is missing, and why: io_uring_* (a second way to nearly every call, past every filter), keyctl, add_key and
# request_key (keyrings know no namespaces), userfaultfd (stalls the kernel at will), kexec_*, swapon and swapoff, nfsservctl,
# uselib, ustat, sysfs, _sysctl, vm86*, migrate_pages, move_pages, remap of io ports, lookup_dcookie, rtas.

# Files and directories
allow
    open openat openat2 creat close close_range dup dup2 dup3 name_to_handle_at
    access faccessat faccessat2 stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx
    statfs statfs64 fstatfs fstatfs64 statmount listmount
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2
    lseek _llseek readahead fadvise64 fadvise64_64 sync_file_range cachestat
    sendfile sendfile64 splice tee vmsplice copy_file_range
    truncate truncate64 ftruncate ftruncate64 fallocate fsync fdatasync sync syncfs
    chdir fchdir getcwd mkdir mkdirat rmdir getdents getdents64
    link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat renameat2
    chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 umask
    mknod mknodat utime utimes utimensat utimensat_time64 futimesat
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat
    listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat
    fcntl fcntl64 flock ioctl
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark

# Waiting for events
allow
    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2
    eventfd eventfd2 signalfd signalfd4 pipe pipe2
    timerfd_create timerfd_settime timerfd_settime64 timerfd_gettime timerfd_gettime64
    io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64

# Memory
allow
    brk mmap mmap2 munmap mremap mprotect madvise mincore msync remap_file_pages mseal
    mlock mlock2 mlockall munlock munlockall membarrier memfd_create memfd_secret map_shadow_stack
    pkey_alloc pkey_free pkey_mprotect

# Processes, threads, identity
allow
    execve execveat fork vfork exit exit_group wait4 waitid waitpid restart_syscall
    getpid gettid getppid getpgid getpgrp getsid setpgid setsid set_tid_address
    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32
    getresuid getresuid32 getresgid getresgid32 getgroups getgroups32
    setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32
    setresuid setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32
    capget capset prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
    getrlimit ugetrlimit setrlimit prlimit64 getrusage times sysinfo uname getcpu
    getpriority setpriority ioprio_get ioprio_set
    sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr sched_getparam sched_setparam
    sched_getscheduler sched_setscheduler sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval sched_rr_get_interval_time64
    set_thread_area get_thread_area set_robust_list get_robust_list rseq
    futex futex_time64 futex_waitv futex_wait futex_wake futex_requeue
    pidfd_open pidfd_send_signal process_mrelease
    ptrace process_vm_readv process_vm_writev

# Signals
allow
    kill tkill tgkill pause alarm sigaltstack sigprocmask sigreturn
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo

# Time
allow
    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64
    nanosleep clock_nanosleep clock_nanosleep_time64 adjtimex clock_adjtime clock_adjtime64
    getitimer setitimer timer_create timer_delete timer_getoverrun
    timer_gettime timer_gettime64 timer_settime timer_settime64

# Talking to others; which families a socket may have is told below
allow
    socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    ipc shmget shmat shmdt shmctl semget semop semctl semtimedop semtimedop_time64 msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64
    mq_timedreceive mq_timedreceive_time64
    getrandom

# Address families: the old ones below DECnet, then key, netlink, packet, RDS, PPPoX, LLC, InfiniBand, MPLS, CAN, TIPC,
# Bluetooth, KCM, XDP. Not AF_ALG and AF_VSOCK: the one has a long record of holes, the other reaches the hypervisor.
allow when arg0 < 12
    socket
allow when arg0 == 15
    socket
allow when arg0 == 16
    socket
allow when arg0 == 17
    socket
allow when arg0 == 21
    socket
allow when arg0 == 24
    socket
allow when arg0 == 26
    socket
allow when arg0 == 27
    socket
allow when arg0 == 28
    socket
allow when arg0 == 29
    socket
allow when arg0 == 30
    socket
allow when arg0 == 31
    socket
allow when arg0 == 41
    socket
allow when arg0 == 44
    socket

# The call by which 32-bit programs once did all of the above: it takes the family in memory, where no filter sees it, and
# every program can make 32-bit calls. On ENOSYS newer C libraries make the plain call.
errno 38
    socketcall

# Linux, Linux 32-bit, without address randomisation each, and the question
allow when arg0 == 0
    personality
allow when arg0 == 8
    personality
allow when arg0 == 0x20000
    personality
allow when arg0 == 0x20008
    personality
allow when arg0 == 0xffffffff
    personality

# What only one kind of processor has
allow if arch amd64 x32
    arch_prctl
allow if arch amd64 x32 x86
    modify_ldt uretprobe
allow if arch arm arm64
    arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls
allow if arch riscv64
    riscv_flush_icache riscv_hwprobe

# New processes, but no new namespaces: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET must be clear. clone3 takes
# its flags in memory, where no filter sees them; on ENOSYS a program falls back to clone.
allow when arg0 & 0x7e020000 == 0 unless cap CAP_SYS_ADMIN
    clone
errno 38 unless cap CAP_SYS_ADMIN
    clone3

# What a capability opens
allow if cap CAP_SYS_ADMIN
    clone clone3 unshare setns mount umount umount2 open_tree move_mount mount_setattr fsopen fsconfig fsmount fspick
    bpf perf_event_open fanotify_init quotactl quotactl_fd sethostname setdomainname syslog
    lsm_get_self_attr lsm_set_self_attr lsm_list_modules
allow if cap CAP_DAC_READ_SEARCH
    open_by_handle_at
allow if cap CAP_SYS_CHROOT
    chroot
allow if cap CAP_SYS_BOOT
    reboot
allow if cap CAP_SYS_MODULE
    init_module finit_module delete_module
allow if cap CAP_SYS_PACCT
    acct
allow if cap CAP_SYS_PTRACE
    kcmp pidfd_getfd process_madvise
allow if cap CAP_SYS_RAWIO
    iopl ioperm
allow if cap CAP_SYS_TIME
    settimeofday stime clock_settime clock_settime64
allow if cap CAP_SYS_TTY_CONFIG
    vhangup
allow if cap CAP_SYS_NICE
    mbind get_mempolicy set_mempolicy set_mempolicy_home_node
allow if cap CAP_SYSLOG
    syslog
allow if cap CAP_BPF
    bpf
allow if cap CAP_PERFMON
    perf_event_open
