"""Health checker `word`: a pod is healthy when it answers with one certain word."""

from deployer.sdk.health import HealthChecker, Verdict
from deployer.sdk.plugin import hookimpl


class Word(HealthChecker):
    name = "word"

    def __init__(self, word):
        self.word = word

    def check(self, target):
        answer = target.ask()
        good = answer.ok and answer.text.strip() == self.word
        return Verdict(good, f"{target.where} said {answer.text[:50]!r}", answer.text)


@hookimpl
def settings_schema():
    return {"type": "object", "properties": {"word": {"type": "string"}}, "additionalProperties": False}


@hookimpl
def register_health_checkers(settings):
    return [Word(settings.table.get("word", "ok"))]
