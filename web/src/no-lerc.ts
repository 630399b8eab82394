/** In place of the decoder of LERC, which would be a file beside the page; `tiff.ts` refuses such images first. */

function refuse(): never {
  throw new Error("LERC is not supported");
}

export const load = refuse;
export const decode = refuse;
export default { load: refuse, decode: refuse };
