"""Evidence in an agent's model calls."""

from __future__ import annotations

import subprocess
import sys

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from pydantic import Field

from langchain_s3_retriever.middleware import EvidenceMiddleware
from s3_retriever import InputError

QUESTION = "How much holiday do I get?"


class Model(GenericFakeChatModel):
    """Keeps what it reads."""

    read: list = Field(default_factory=list)

    def _generate(self, messages, *args, **kwargs):
        self.read.append(messages)
        return super()._generate(messages, *args, **kwargs)


def agent(retriever, system_prompt=None, **options):
    model = Model(messages=iter([AIMessage("28 days."), AIMessage("At noon.")]))
    middleware = EvidenceMiddleware(retriever, **options)
    return model, create_agent(model, middleware=[middleware], system_prompt=system_prompt)


@pytest.mark.parametrize("system_prompt", [None, "Be brief."])
async def test_the_model_reads_evidence_that_the_conversation_does_not_keep(
    retriever, system_prompt
):
    model, made = agent(retriever, system_prompt)
    state = made.invoke({"messages": [HumanMessage(QUESTION)]})
    assert [message.text for message in state["messages"]] == [QUESTION, "28 days."]
    system, question = model.read[0]
    assert "[leave:0-40] Staff have 28 days of paid leave a year." in system.text
    assert system.text.startswith(system_prompt or "Answer from this evidence")
    assert question.text == QUESTION
    state = await made.ainvoke({"messages": [*state["messages"], HumanMessage("When is lunch?")]})
    assert "Lunch is served" in model.read[1][0].text
    assert len(state["messages"]) == 4


def test_nothing_found_leaves_the_call_alone(retriever):
    model, made = agent(retriever)
    made.invoke({"messages": [HumanMessage(" ")]})
    assert [message.text for message in model.read[0]] == [" "]


def test_the_question_may_come_in_blocks_and_the_prompt_is_ones_own(retriever):
    model, made = agent(retriever, prompt="Evidence {braces}:\n{evidence}")
    made.invoke({"messages": [HumanMessage([{"type": "text", "text": QUESTION}])]})
    assert model.read[0][0].text.startswith("Evidence {braces}:\n[leave:0-40] Staff have")


def test_wrong_arguments_are_refused(retriever):
    with pytest.raises(InputError, match="retriever must be"):
        EvidenceMiddleware("handbook.s3r")
    with pytest.raises(InputError, match=r"\{evidence\}"):
        EvidenceMiddleware(retriever, prompt="Be brief.")


def test_without_langchain_the_extra_is_named():
    code = """
import sys
sys.modules["langchain"] = None
import langchain_s3_retriever.middleware
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "langchain-s3-retriever[agents]" in ended.stderr.splitlines()[-1]
