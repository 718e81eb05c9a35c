/* Lets user-mode Linux run on processors whose register state is larger than it knows; loaded into it by tools/uml.
 *
 * The kernel takes a thread's extended registers back by PTRACE_SETREGSET only in full length (EFAULT otherwise), and with
 * AMX that is 11,008 bytes. User-mode Linux 6.1 keeps a buffer up to AVX-512, 2,696 bytes, and so cannot start its first
 * process there: "ptrace set fp regs failed, errno = 14". Here such a short buffer is lengthened. What lies behind it
 * are tile registers, which no guest can have been allowed to use: its xstate_bv names them unused, and the kernel then
 * does not read them. On other processors nothing is changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long ptrace_function(enum __ptrace_request, ...);

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_function *next;
	static _Alignas(64) char whole[65536];
	static size_t length; /* of the registers of this processor; 0: not yet asked */
	va_list list;
	va_start(list, request);
	pid_t pid = va_arg(list, pid_t);
	void *address = va_arg(list, void *);
	void *data = va_arg(list, void *);
	va_end(list);
	if (!next)
		next = (ptrace_function *)dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || (unsigned long)address != NT_X86_XSTATE)
		return next(request, pid, address, data);
	struct iovec all = { whole, sizeof whole };
	if (length == 0) {
		if (next(PTRACE_GETREGSET, pid, address, &all) < 0)
			return -1;
		length = all.iov_len;
		memset(whole, 0, length);
	}
	struct iovec *given = data;
	if (given->iov_len >= length)
		return next(request, pid, address, data);
	memcpy(whole, given->iov_base, given->iov_len);
	all.iov_len = length;
	return next(request, pid, address, &all);
}
