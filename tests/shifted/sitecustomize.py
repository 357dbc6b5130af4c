"""On the PYTHONPATH of a process: its clock is SHIFT_S seconds off, to all that is written in Python."""

import datetime
import os
import time

_SHIFT_S = int(os.environ["SHIFT_S"])
_time, _time_ns, _gmtime, _localtime = time.time, time.time_ns, time.gmtime, time.localtime
_Datetime = datetime.datetime


class _Kind(type(_Datetime)):  # type: ignore[misc]
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _Datetime)


class _Shifted(_Datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Datetime":  # type: ignore[override]
        return _Datetime.now(tz) + datetime.timedelta(seconds=_SHIFT_S)

    @classmethod
    def utcnow(cls) -> "_Datetime":  # type: ignore[override]
        return _Datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=_SHIFT_S)


time.time = lambda: _time() + _SHIFT_S
time.time_ns = lambda: _time_ns() + _SHIFT_S * 10**9
time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
datetime.datetime = _Shifted  # type: ignore[misc]
