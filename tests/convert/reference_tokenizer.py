"""Run by a Python that has transformers: what its AutoTokenizer makes of texts and chats.

    python reference_tokenizer.py DIRECTORY < questions.json > answers.json

Questions: {"texts": [text, …], "chats": [[messages, end where the answer begins], …]}.
Answers: {"ids": [[id, …], …], "decoded": [text, …], "chats": [text, …], "chat_ids": …}.
"""

import json
import sys

from any_torchvision import import_torchvision


def main(directory: str) -> None:
    import_torchvision()  # before transformers, which looks for it
    from transformers import AutoTokenizer

    questions = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in questions["texts"]]
    chats = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer)
        for messages, answer in questions["chats"]
    ]
    json.dump(
        {
            "ids": ids,
            "decoded": [tokenizer.decode(row) for row in ids],
            "chats": chats,
            "chat_ids": [tokenizer(chat, add_special_tokens=False)["input_ids"] for chat in chats],
            "pad": tokenizer.pad_token_id,
            "eos": tokenizer.eos_token_id,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
