// Sums over a list.

/** Sums over several requests: decimal texts are added as whole numbers of their smallest digit, so nothing is rounded. */
export function totals(objects) {
  const sum = new Map();
  for (const object of objects) {
    for (const item of object.items ?? [object]) {
      const held = item.resource.properties ?? {};
      const unit = String(held.currency ?? held.unit ?? "");
      for (const [member, given] of Object.entries(held)) {
        if (typeof given === "number") sum.set(`${member}\n${unit}`, [...(sum.get(`${member}\n${unit}`) ?? []), given]);
      }
    }
  }
  return [...sum].map(([key, all]) => ({ member: key.split("\n")[0], unit: key.split("\n")[1], sum: exact(all) }));
}

function exact(numbers) {
  const texts = numbers.map(String);
  if (texts.some((text) => /e/i.test(text))) return String(numbers.reduce((a, b) => a + b, 0));
  const places = Math.max(...texts.map((text) => (text.split(".")[1] ?? "").length));
  const whole = texts.map((text) => { const [head, tail = ""] = text.split("."); return BigInt(head + tail.padEnd(places, "0")); }).reduce((a, b) => a + b, 0n);
  const digits = String(whole < 0n ? -whole : whole).padStart(places + 1, "0");
  const text = places ? `${digits.slice(0, -places)}.${digits.slice(-places)}`.replace(/\.?0+$/, "") : digits;
  return whole < 0n ? `-${text}` : text;
}
