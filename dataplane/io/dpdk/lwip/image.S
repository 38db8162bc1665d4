// The shared object that holds lwIP, as bytes: each shard loads a private copy.
	.section .rodata
	.global sl_stack_image, sl_stack_image_end
	.balign 16
sl_stack_image:
	.incbin SL_STACK_IMAGE
sl_stack_image_end:
	.section .note.GNU-stack, "", %progbits
