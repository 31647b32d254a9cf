"""How a script ends: a user's error is printed on one line."""

import functools
import sys
import traceback
from collections.abc import Callable

from glow_jax.devices import has_joined_processes, is_main_process, leave
from glow_jax.errors import GlowError, Stopped


def one_line_errors(script: Callable[[], None]) -> Callable[[], None]:
    """Make a script print a user's error on one line and exit with 2, or with 130 on Ctrl-C."""

    @functools.wraps(script)
    def run() -> None:
        try:
            script()
        except GlowError as error:
            message = str(error)
        except OSError as error:
            if error.filename is None or error.strerror is None:
                traceback.print_exc()
                leave(1)
            message = f"{error.filename} cannot be used: {error.strerror}."
        except Stopped as stopped:
            if is_main_process():
                print(stopped, flush=True)
            sys.exit(stopped.exit_status)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            leave(130)
        except Exception:
            if not has_joined_processes():
                raise
            traceback.print_exc()
            leave(1)
        else:
            return
        print(f"error: {message}", file=sys.stderr)
        leave(2)

    return run
