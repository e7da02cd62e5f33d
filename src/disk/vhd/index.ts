/** VHD images: fixed, dynamic and differencing. */
export { chainOfVhd as chain } from './chain.ts';
export { checkVhd as check } from './check.ts';
export { compactVhd as compact } from './compact.ts';
export { createVhd as create } from './create.ts';
export { childrenOfVhd as children, mergeVhd as merge } from './merge.ts';
export { openVhd as open } from './open.ts';
export { resizeVhd as resize } from './resize.ts';
