"""Asks an environment injector, within a deadline, and checks what it gives before anything else is done with it."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Iterator

from deployer.core.calls import Invocation, no_list
from deployer.core.contract.environment import EnvContext, EnvInjector
from deployer.core.errors import Interrupted, StepFailed
from deployer.core.model.records import Document
from deployer.descriptor.podspec import types as podtypes

logger = logging.getLogger(__name__)

DEADLINE = 30.0
"""Seconds that one injector has, of those for deciding."""

LONGEST = 80
"""Characters of a name that a sentence repeats."""

_REASON = "EnvironmentFailed"
_HINT = "nothing was written; ask those who run the Deployer"


def ask(injector: EnvInjector, title: str, context: EnvContext) -> list[Document]:
    """What the injector gives, as core/v1 EnvVars. `title` is what errors call it.

    Raises StepFailed, of errors that are not its own without their text, and what the context's scope raises.
    """

    def environment() -> list[Document]:
        answer = injector.environment(context)
        if wrong := no_list(answer):
            raise StepFailed(f"environment() of {title} {wrong}", reason=_REASON, hint=_HINT)
        return list(answer)

    call = Invocation(environment, "injector")
    forget = context.scope.on_close(call.wake)
    back = call.wait(context.scope.remaining(DEADLINE))
    forget()
    context.scope.check()
    if not back:
        said = f"{title} did not come back from environment() within {DEADLINE:g} s"
        raise StepFailed(said, reason=_REASON, hint=_HINT)
    try:
        answer = call.result()
    except (StepFailed, Interrupted):
        raise
    except BaseException as error:  # sys.exit in a plugin must not end the service
        # Where it happened, but not its text: that may hold the value which it choked on.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s raised %s\n%s", title, type(error).__name__, where)
        said = f"{title} raised {type(error).__name__} in environment()"
        raise StepFailed(said, reason=_REASON, hint="the service's log has the details") from error
    for variable in answer:
        for wrong in _wrong(variable):
            raise StepFailed(f"{title} gave {wrong}", reason=_REASON, hint=_HINT)
    return answer


def _wrong(variable: object) -> Iterator[str]:
    """What is wrong with something that should be a core/v1 EnvVar, without any value of it."""
    name = variable.get("name") if isinstance(variable, dict) else None
    said = name[:LONGEST] if isinstance(name, str) else ""
    if not isinstance(variable, dict):
        yield f"a {type(variable).__name__} instead of an environment variable"
    elif not isinstance(name, str) or not re.fullmatch(r"[-._a-zA-Z][-._a-zA-Z0-9]*", name):
        yield "something that is no environment variable: it has no valid name"
    elif unknown := sorted(str(key) for key in variable.keys() - {"name", "value", "valueFrom"}):
        yield f"environment variable {said} with the unknown key {unknown[0][:LONGEST]}"
    elif len(variable) != 2:
        both = "both value and" if len(variable) > 2 else "neither value nor"
        yield f"environment variable {said} with {both} valueFrom"
    elif "value" in variable and not isinstance(variable["value"], str):
        yield f"environment variable {said} with a value of type {type(variable['value']).__name__}, not str"
    else:
        podspec = {"containers": [{"name": "app", "env": [variable]}]}
        for path in podtypes.unknown_fields(podspec):
            yield f"environment variable {said} with the unknown field {path.rpartition('].')[2]}"
        for problem in podtypes.type_problems(podspec):
            yield f"environment variable {said} with a {problem.path.rpartition('].')[2]} that {problem.message}"
