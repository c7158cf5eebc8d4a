"""S3: any Hugging Face transformer as its own retriever."""
