/** Connected components of a thresholded map, numbered as `im2im_zoo/instances/methods/components.py` does. */

export interface Labels {
  /** 0 background, 1..count in raster order of the components' first voxels. */
  values: Int32Array;
  count: number;
}

/** Label the components of where a map exceeds a threshold; voxels connect through their faces. */
export function components(map: ArrayLike<number>, height: number, width: number, threshold: number, minSize: number): Labels {
  const limit = Math.fround(threshold);
  const values = new Int32Array(height * width);
  const parents = [0];
  const find = (label: number): number => {
    while (parents[label] !== label) label = parents[label] = parents[parents[label]!]!;
    return label;
  };
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!(map[i]! > limit)) continue;
      const left = x > 0 ? values[i - 1]! : 0;
      const above = y > 0 ? values[i - width]! : 0;
      if (left && above) {
        const [a, b] = [find(left), find(above)];
        parents[Math.max(a, b)] = Math.min(a, b);
        values[i] = Math.min(a, b);
      } else if (left || above) {
        values[i] = left || above;
      } else {
        values[i] = parents.push(parents.length) - 1;
      }
    }
  }
  const sizes = new Int32Array(parents.length);
  for (let i = 0; i < values.length; i++) if (values[i]) sizes[(values[i] = find(values[i]!))]!++;
  const numbers = new Int32Array(parents.length);
  let count = 0;
  for (let label = 1; label < parents.length; label++) if (sizes[label]! >= Math.max(1, minSize)) numbers[label] = ++count;
  for (let i = 0; i < values.length; i++) values[i] = numbers[values[i]!]!;
  return { values, count };
}
