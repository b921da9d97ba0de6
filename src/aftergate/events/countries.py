"""Country names as identity logs write them, to ISO 3166 alpha-2."""

from __future__ import annotations

from typing import Final

_NAMES: Final = """\
Afghanistan=AF|Albania=AL|Algeria=DZ|Andorra=AD|Angola=AO|Argentina=AR|Armenia=AM|Australia=AU|Austria=AT|Azerbaijan=AZ|Bahamas=BS|Bahrain=BH
Bangladesh=BD|Barbados=BB|Belarus=BY|Belgium=BE|Belize=BZ|Benin=BJ|Bhutan=BT|Bolivia=BO|Bosnia and Herzegovina=BA|Botswana=BW|Brazil=BR
Brunei=BN|Bulgaria=BG|Burkina Faso=BF|Burundi=BI|Cambodia=KH|Cameroon=CM|Canada=CA|Chad=TD|Chile=CL|China=CN|Colombia=CO|Congo=CG
Costa Rica=CR|Croatia=HR|Cuba=CU|Cyprus=CY|Czechia=CZ|Czech Republic=CZ|Denmark=DK|Dominican Republic=DO|Ecuador=EC|Egypt=EG|El Salvador=SV
Estonia=EE|Ethiopia=ET|Fiji=FJ|Finland=FI|France=FR|Gabon=GA|Georgia=GE|Germany=DE|Ghana=GH|Gibraltar=GI|Greece=GR|Guatemala=GT|Guernsey=GG
Haiti=HT|Honduras=HN|Hong Kong=HK|Hungary=HU|Iceland=IS|India=IN|Indonesia=ID|Iran=IR|Iran, Islamic Republic of=IR|Iraq=IQ|Ireland=IE
Isle of Man=IM|Israel=IL|Italy=IT|Ivory Coast=CI|Jamaica=JM|Japan=JP|Jersey=JE|Jordan=JO|Kazakhstan=KZ|Kenya=KE|Kuwait=KW|Kyrgyzstan=KG
Laos=LA|Latvia=LV|Lebanon=LB|Libya=LY|Liechtenstein=LI|Lithuania=LT|Luxembourg=LU|Macao=MO|Madagascar=MG|Malawi=MW|Malaysia=MY|Maldives=MV
Mali=ML|Malta=MT|Mauritius=MU|Mexico=MX|Moldova=MD|Monaco=MC|Mongolia=MN|Montenegro=ME|Morocco=MA|Mozambique=MZ|Myanmar=MM|Namibia=NA|Nepal=NP
Netherlands=NL|The Netherlands=NL|New Zealand=NZ|Nicaragua=NI|Niger=NE|Nigeria=NG|North Korea=KP|North Macedonia=MK|Norway=NO|Oman=OM
Pakistan=PK|Palestine=PS|Panama=PA|Paraguay=PY|Peru=PE|Philippines=PH|Poland=PL|Portugal=PT|Puerto Rico=PR|Qatar=QA|Romania=RO|Russia=RU
Russian Federation=RU|Rwanda=RW|San Marino=SM|Saudi Arabia=SA|Senegal=SN|Serbia=RS|Seychelles=SC|Singapore=SG|Slovakia=SK|Slovenia=SI
Somalia=SO|South Africa=ZA|South Korea=KR|Republic of Korea=KR|Korea, Republic of=KR|Spain=ES|Sri Lanka=LK|Sudan=SD|Sweden=SE|Switzerland=CH
Syria=SY|Taiwan=TW|Tajikistan=TJ|Tanzania=TZ|Thailand=TH|Togo=TG|Trinidad and Tobago=TT|Tunisia=TN|Turkey=TR|Türkiye=TR|Turkmenistan=TM
Uganda=UG|Ukraine=UA|United Arab Emirates=AE|United Kingdom=GB|Great Britain=GB|UK=GB|United States=US|United States of America=US|USA=US
Uruguay=UY|Uzbekistan=UZ|Venezuela=VE|Vietnam=VN|Viet Nam=VN|Yemen=YE|Zambia=ZM|Zimbabwe=ZW
"""

_CODES: Final[dict[str, str]] = {
    name.casefold(): code for name, _, code in (entry.rpartition("=") for entry in _NAMES.replace("\n", "|").split("|") if entry)
}


def alpha2(text: str | None) -> str | None:
    """`Germany`, `de` and `DE` give `DE`. What is neither a code nor a listed name is unknown: None."""
    if not text:
        return None
    word = text.strip()
    found = _CODES.get(word.casefold())
    if found is not None:
        return found
    return word.upper() if len(word) == 2 and word.isascii() and word.isalpha() else None
