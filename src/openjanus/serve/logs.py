"""The log: one line of JSON for whatever happens, tracebacks too."""

import json
import logging
import sys
import time


class JsonLines(logging.Formatter):
    """A record as one line. Ours are JSON already; those of libraries become {"event": "log", ...}."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage()
        if record.name.startswith("openjanus.serve"):
            line = json.loads(message)
        else:
            line = {"event": "log", "logger": record.name, "level": record.levelname.lower(), "message": message.strip()}
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)), **line}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Write requests and what goes wrong, here and in libraries, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().addHandler(handler)
    logging.getLogger("openjanus.serve").setLevel(logging.INFO)
    # It tells at length that it starts and stops, and of each client that sends no HTTP.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
