/* The model, where the board's script wants it. The file's name is that of the build. */
    .section .model, "a"
    .balign 64
    .global model_start, model_end
model_start:
    .incbin "model.cbl"
model_end:
