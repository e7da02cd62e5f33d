import type { Geometry } from '../virtual-disk.ts';

/** Cylinders × heads × sectors that stand for "too large for CHS": a mark, not a size. */
export const GEOMETRY_LARGEST: Geometry = { cylinders: 65535, heads: 16, sectorsPerTrack: 255 };

const SECTORS_MAX = 65535 * 16 * 255;

/**
 * The geometry that the VHD specification (appendix "CHS calculation") derives from a size in bytes. Every division
 * truncates.
 */
export function geometryOf(size: number): Geometry {
  const sectors = Math.min(Math.floor(size / 512), SECTORS_MAX);
  if (sectors >= 65535 * 16 * 63) return geometry(Math.floor(sectors / 255), 16, 255);
  let cylinderHeads = Math.floor(sectors / 17);
  const heads = Math.max(4, Math.floor((cylinderHeads + 1023) / 1024));
  if (cylinderHeads < heads * 1024 && heads <= 16) return geometry(cylinderHeads, heads, 17);
  cylinderHeads = Math.floor(sectors / 31);
  if (cylinderHeads < 16 * 1024) return geometry(cylinderHeads, 16, 31);
  return geometry(Math.floor(sectors / 63), 16, 63);
}

function geometry(cylinderHeads: number, heads: number, sectorsPerTrack: number): Geometry {
  return { cylinders: Math.floor(cylinderHeads / heads), heads, sectorsPerTrack };
}

export const geometryBytes = (g: Geometry): number => g.cylinders * g.heads * g.sectorsPerTrack * 512;

export const sameGeometry = (a: Geometry, b: Geometry): boolean =>
  a.cylinders === b.cylinders && a.heads === b.heads && a.sectorsPerTrack === b.sectorsPerTrack;
