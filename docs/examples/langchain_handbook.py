"""A handbook of eight pages, for the LangChain examples."""

from __future__ import annotations

from langchain_core.documents import Document

_PAGES = {
    "leave": (
        "Staff have 28 days of paid leave a year. Ask your manager two weeks ahead. "
        "Up to five unused days move on into spring."
    ),
    "releases": (
        "Every release is tested for two days. The head of quality signs it off. "
        "Nothing is shipped on a Friday."
    ),
    "laptops": (
        "Laptops are replaced every three years. Report a stolen one to the help desk at once. "
        "Disks are encrypted before a laptop is handed out."
    ),
    "travel": (
        "Trains are booked by the front office. Keep the receipts, they are paid back within a "
        "month. Flights need the consent of a director."
    ),
    "canteen": (
        "Lunch is served from noon to two. On Fridays there is soup only. "
        "Guests eat for free when their host has signed them in."
    ),
    "visitors": (
        "Visitors wear a badge at all times. They are met at the gate and brought back to it. "
        "Photographs of the workshop are not allowed."
    ),
    "illness": (
        "Call your team before nine when you are unwell. From the fourth day on a doctor's note "
        "is needed. Send it to the personnel office."
    ),
    "keys": (
        "Door cards are handed out by the porter. A lost card is blocked within minutes. "
        "The second one costs ten euros."
    ),
}

HANDBOOK = [
    Document(text, id=name, metadata={"source": f"handbook/{name}.md"})
    for name, text in _PAGES.items()
]
