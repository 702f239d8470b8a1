-- Reads rows "floor ours floor-again" (nanoseconds per echo), prints medians and median ratios.

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local floors, ours, ratios, noise = {}, {}, {}, {}
for line in io.lines() do
  local floor, own, again = line:match("(%d+) (%d+) (%d+)")
  floors[#floors + 1] = tonumber(floor)
  ours[#ours + 1] = tonumber(own)
  ratios[#ratios + 1] = own / floor
  noise[#noise + 1] = again / floor
end

print(("%2d in flight, 64 bytes: floor %.2f µs, lua-ip %.2f µs of CPU per echo; ratio %.2f (noise %.2f), %d rounds"):format(
  tonumber(arg[1]), median(floors) / 1000, median(ours) / 1000, median(ratios), median(noise), #ratios))
