"""What every part of im2im_zoo may use; it uses none of them."""
