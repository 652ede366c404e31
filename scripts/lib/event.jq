# One short line for every event; "-" for those that only tell of times.
def octal: if . < 8 then tostring else ((. / 8 | floor) | octal) + (. % 8 | tostring) end;
def value: if . == null then "none" else tostring end;
def text: if .field == "mode" then "\(.old | octal) -> \(.new | octal)" else "\(.old | value) -> \(.new | value)" end;
def what:
  if .type == "create" then "\(.path)  \(.kind), mode \(.mode | octal), \(.size) bytes" + (if .target then ", to \(.target)" else "" end)
  elif .type == "rename" then "\(.from) \(if .exchange then "<->" else "->" end) \(.path)"
  elif .type == "write" then "\(.path)  \(.length) bytes at \(.offset)" + (if .zero then ", zeros" else "" end)
  elif .type == "truncate" then "\(.path)  \(.old) -> \(.new) bytes"
  elif .type == "metadata" then "\(.path)  \(.field) \(text)"
  elif .type == "volume" then "\(.what)" + (if .fs then ", \(.fs)" else "" end)
  elif .type == "gap" then "\(.reason), \(.bytes) bytes"
  else .path end;
if .field == "mtime" or .field == "ctime" or .field == "atime" then "-"
else (.type + "         ")[:9] + what end
