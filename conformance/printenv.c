/* printenv(1) of the image of Podman's tests, which Debian's busybox does not have: all of the environment, or values. */
#include <stdio.h>
#include <stdlib.h>

extern char **environ;

int
main (int argc, char **argv)
{
  int missing = 0;

  if (argc == 1)
    for (char **entry = environ; *entry; entry++)
      puts (*entry);
  for (int i = 1; i < argc; i++)
    {
      const char *value = getenv (argv[i]);
      if (value)
        puts (value);
      else
        missing = 1;
    }
  return missing;
}
