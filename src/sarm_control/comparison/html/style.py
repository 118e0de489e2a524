"""The style sheet of every report: readable text, quiet tables, light and dark."""

CSS = """
:root{color-scheme:light dark;--paper:#fdfdfb;--ink:#1d2126;--soft:#5b6470;--line:#dcdfe3;--wash:#f2f4f6;
--up:#2166ac;--down:#c2571a;--s0:#2166ac;--s1:#c2571a;--s2:#3f7f4f;--s3:#7b4fa3;--mark:#fff3c4}
@media (prefers-color-scheme:dark){:root{--paper:#15181c;--ink:#e6e8eb;--soft:#9aa4b0;--line:#343a42;
--wash:#1e2328;--up:#6cacf0;--down:#f0965a;--s0:#6cacf0;--s1:#f0965a;--s2:#7fc48f;--s3:#b794e0;--mark:#4a4016}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 1rem;letter-spacing:-.01em}
h2{font-size:1.25rem;line-height:1.3;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.75rem 0 .5rem}
p{margin:.5rem 0 1rem;max-width:46rem}
.headline p{font-size:1.0625rem;margin:0 0 .75rem}
.headline{border-left:4px solid var(--up);padding:.25rem 0 .25rem 1rem;margin:0 0 1.5rem}
.headline p:last-child{margin-bottom:0}
.note,caption,figcaption{color:var(--soft);font-size:.875rem}
dl.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.75rem 1.5rem;margin:0}
dl.facts dt{color:var(--soft);font-size:.8125rem}
dl.facts dd{margin:0;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:.75rem 0 1.25rem}
table{border-collapse:collapse;width:100%;font-size:.9375rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding-bottom:.5rem;caption-side:top}
th,td{padding:.35rem .75rem .35rem 0;text-align:right;vertical-align:baseline;
border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;white-space:normal;min-width:11rem}
tr>*:last-child{padding-right:0}
thead th{color:var(--soft);font-weight:600;font-size:.8125rem;border-bottom-color:var(--soft)}
tbody th{font-weight:400}
tr.total>*{font-weight:600;border-top:1px solid var(--soft)}
tr.marked th{background:linear-gradient(90deg,var(--mark),transparent)}
.ends{color:var(--soft);font-size:.8125rem;margin-left:.35rem}
figure{margin:1rem 0 1.5rem}
figcaption{margin-top:.25rem;max-width:46rem}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(19rem,1fr));gap:1.25rem 1.75rem}
.panels figure{margin:0}
.panels h3{margin:.25rem 0}
svg{display:block;max-width:100%;height:auto;font-size:12px;overflow:visible}
svg text{fill:var(--ink)}
svg .tick,svg .axis{fill:var(--soft);font-size:11px}
svg .value{font-variant-numeric:tabular-nums}
svg .marked{font-weight:700}
svg .grid{stroke:var(--line);stroke-width:1}
svg .zero{stroke:var(--soft);stroke-width:1}
svg rect{opacity:.7}
svg .up{fill:var(--up)}svg .down{fill:var(--down)}
svg .dot{stroke:var(--paper);stroke-width:1.5}
svg .dot:not(.up):not(.down){fill:var(--soft)}
svg .whisker{fill:none;stroke:var(--ink);stroke-width:1.25}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .faint{stroke-width:1;opacity:.35}
svg .s0{stroke:var(--s0)}svg .s1{stroke:var(--s1);stroke-dasharray:7 4}
svg .s2{stroke:var(--s2);stroke-dasharray:2 4}svg .s3{stroke:var(--s3);stroke-dasharray:9 3 2 3}
svg .faint{stroke-dasharray:none}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:.5rem 0 .75rem;padding:0;
list-style:none;font-size:.875rem}
.legend svg{display:inline-block;vertical-align:middle;margin-right:.4rem}
.sample{border:1px solid var(--line);border-radius:6px;margin:0 0 1rem;overflow:hidden}
.sample>h3{margin:0;padding:.6rem .9rem;background:var(--wash);font-weight:400;font-size:.9375rem;
white-space:pre-wrap;overflow-wrap:anywhere}
.answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr))}
.answers>div{padding:.6rem .9rem;border-top:1px solid var(--line);min-width:0}
.answers h4{margin:0 0 .35rem;font-size:.8125rem;color:var(--soft);font-weight:600}
.answers p{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.9375rem}
pre{background:var(--wash);border-radius:6px;padding:.75rem .9rem;overflow-x:auto;font-size:.8125rem}
@media print{body{background:#fff}.scroll{overflow:visible}h2{break-after:avoid}
figure,.sample{break-inside:avoid}}
"""
