/** VHDX images: fixed, dynamic and differencing. */
export { chainOfVhdx as chain } from './chain.ts';
export { checkVhdx as check } from './check.ts';
export { compactVhdx as compact } from './compact.ts';
export { createVhdx as create } from './create.ts';
export { childrenOfVhdx as children, mergeVhdx as merge } from './merge.ts';
export { openVhdx as open } from './open.ts';
export { resizeVhdx as resize } from './resize.ts';
