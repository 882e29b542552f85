"""Payloads as Gemini sends them."""

from .chat_server import sse

USAGE = {
    "promptTokenCount": 9,
    "toolUsePromptTokenCount": 2,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 5,
    "cachedContentTokenCount": 4,
    "totalTokenCount": 23,
}


def said(*parts, reason=None, **extra):
    candidate = {"index": 0, "content": {"role": "model", "parts": list(parts)}}
    if reason is not None:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "gemini-3-pro", "responseId": "r", **extra}


def ended(reason="STOP", **extra):
    return {"candidates": [{"index": 0, "finishReason": reason}], **extra}


def text(value, signature=None, **extra):
    return {"text": value, **({"thoughtSignature": signature} if signature is not None else {}), **extra}


def called(name, args=None, signature=None, **extra):
    call = {"name": name, **({} if args is None else {"args": args}), **extra}
    return {"functionCall": call, **({"thoughtSignature": signature} if signature is not None else {})}


def answer(value: str) -> bytes:
    return sse(*(said(text(word)) for word in value.split(" ")), ended(usageMetadata=USAGE))


def refusal(code, status, message="no", *details):
    return {"error": {"code": code, "status": status, "message": message, "details": list(details)}}


def retry_info(delay):
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


def quota(*quota_ids):
    violations = [{"quotaMetric": "m", "quotaId": quota_id} for quota_id in quota_ids]
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}
