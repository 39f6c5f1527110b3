#!/bin/sh
# delayed_runtime.sh SECONDS RUNTIME...: run a runtime's command; start and exec return SECONDS later than they do.
# What started in the container has then got on, as it has on a fast host when the test's next command runs.
set -eu
seconds=$1
shift
"$@"
case " $* " in
*" start "* | *" exec "*) sleep "$seconds" ;;
esac
