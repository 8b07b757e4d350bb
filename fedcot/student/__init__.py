"""The student: LoRA adapters on a frozen base, trained on labels and rationales."""
