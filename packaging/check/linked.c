/* Linked in every way that a program may be: the library answers, and so does another one of Rust's, with
 * -DOTHER. */
#include <cerebellum.h>
#include <stdio.h>
#include <string.h>

unsigned other_sum(unsigned count);

int main(void) {
  char message[256] = "";
  cbl_model *model = NULL;
  if (cbl_model_open("no/such/file", NULL, &model, message, sizeof message) != CBL_IO) return 1;
  if (!strstr(message, "no/such/file")) return 2;
#ifdef OTHER
  if (other_sum(5) != 10) return 3;
  if (other_sum(7) != 77) return 4; /* it panics, and catches that */
#endif
  puts("linked");
  return 0;
}
