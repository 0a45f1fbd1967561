/* A plugin for qemu's user mode that writes down the way a program takes: a line for each block of
 * instructions it executes, the address of the first and their number, both in base 16.
 *
 *     gcc -O2 -shared -fPIC trace.c -o trace.so
 *     qemu-aarch64 -plugin ./trace.so,out=FILE PROGRAM
 *
 * For a program with one thread. The declarations are those of qemu-plugin.h, which few distributions ship.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum { QEMU_PLUGIN_CB_NO_REGS = 0 };

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id,
                                           void (*callback)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block,
                                          void (*callback)(unsigned int, void *), int flags, void *user);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*callback)(qemu_plugin_id_t, void *),
                                    void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *block);

int qemu_plugin_version = 1;

struct block {
  unsigned long long address;
  size_t instructions;
};

static FILE *out;

static void on_executed(unsigned int cpu, void *user) {
  const struct block *block = user;
  (void)cpu;
  fprintf(out, "%llx %zx\n", block->address, block->instructions);
}

static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *translated) {
  (void)id;
  struct block *block = malloc(sizeof *block);
  if (block == NULL) abort();
  block->address = qemu_plugin_tb_vaddr(translated);
  block->instructions = qemu_plugin_tb_n_insns(translated);
  qemu_plugin_register_vcpu_tb_exec_cb(translated, on_executed, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void on_exit_of_program(qemu_plugin_id_t id, void *user) {
  (void)id, (void)user;
  if (fclose(out) != 0) abort();
}

int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **arguments) {
  (void)info;
  if (count != 1 || strncmp(arguments[0], "out=", 4) != 0) return 1;
  out = fopen(arguments[0] + 4, "w");
  if (out == NULL) return 1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
  qemu_plugin_register_atexit_cb(id, on_exit_of_program, NULL);
  return 0;
}
